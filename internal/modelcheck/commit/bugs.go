package commit

import "github.com/synod-go/synod/internal/modelcheck/network"

var bugs []network.Bug
