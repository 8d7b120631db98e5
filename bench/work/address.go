package work

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// FreeAddresses returns addresses of this machine that nobody listens on. Members dial each other while others are still to listen: so the ports
// are of those that few systems give to outgoing connections.
func FreeAddresses(n int) (list []string, err error) {
	for attempts := 0; len(list) < n && attempts < 100+n; attempts++ {
		address := fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(10_000))
		l, failed := net.Listen("tcp", address)
		if failed != nil {
			err = failed
			continue
		}
		defer l.Close() // until there are all: they differ
		list = append(list, address)
	}
	if len(list) < n {
		return nil, err
	}
	return list, nil
}
