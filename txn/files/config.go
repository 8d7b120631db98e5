package files

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/synod-go/synod"
)

// Config says where a resource's files are. Dir is required; what is left zero gets the default that stands beside it.
type Config struct {
	// Dir is the directory, which must exist. Below it .synod is the resource's own. The whole tree should be one file system: what
	// is not is copied with Commit, instead of getting a second name.
	Dir string

	// Logger receives what happens. Default: nothing is logged.
	Logger *slog.Logger

	// FileMode is the mode of the files that transactions write, whatever a file that is replaced had, before the umask. Default: 0644.
	FileMode fs.FileMode

	// DirMode is the mode of directories that are made for them. Default: 0755.
	DirMode fs.FileMode

	// OpenTimeout is how long a transaction may be open, from Begin until it is prepared or aborted; then it is given
	// up. Default: an hour.
	OpenTimeout time.Duration

	// MaxOpen limits the transactions that are open or prepared at a time. Default: 1,024.
	MaxOpen int

	// MaxChanges limits the files of a transaction, read, written or removed. Default: 1,024.
	MaxChanges int

	// MaxBytes limits what a transaction writes, and what it reads at once. Default: 1 GiB.
	MaxBytes int64

	// MaxMarkers limits the transactions of a run that are remembered as committed, by an empty file each, so that
	// a Commit that is asked again is known to be done; and as many of earlier runs. Well above the transactions that the manager
	// may not have taken note of. Default: 16,384.
	MaxMarkers int
}

func (c *Config) setDefaults() error {
	bad := func(field, format string, args ...any) error {
		return &synod.ConfigError{Package: "files", Field: field, Reason: fmt.Sprintf(format, args...)}
	}
	if c.Dir == "" {
		return bad("Dir", "missing: name the directory that has the files")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.FileMode == 0 {
		c.FileMode = 0o644
	}
	if c.DirMode == 0 {
		c.DirMode = 0o755
	}
	if c.FileMode&^0o777 != 0 || c.FileMode&0o600 != 0o600 {
		return bad("FileMode", "%v: permissions alone, and the owner may read and write", c.FileMode)
	}
	if c.DirMode&^0o777 != 0 || c.DirMode&0o700 != 0o700 {
		return bad("DirMode", "%v: permissions alone, and the owner may do all", c.DirMode)
	}
	if c.OpenTimeout == 0 {
		c.OpenTimeout = time.Hour
	}
	if c.OpenTimeout < time.Second {
		return bad("OpenTimeout", "%v: at least %v", c.OpenTimeout, time.Second)
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 1 << 30
	}
	if c.MaxBytes < 1 {
		return bad("MaxBytes", "%d: at least 1", c.MaxBytes)
	}
	for _, f := range []struct {
		name                string
		value               *int
		standard, low, high int
	}{
		{"MaxOpen", &c.MaxOpen, 1024, 1, 1 << 20},
		{"MaxChanges", &c.MaxChanges, 1024, 1, 1 << 16},
		{"MaxMarkers", &c.MaxMarkers, 1 << 14, 16, 1 << 20},
	} {
		if *f.value == 0 {
			*f.value = f.standard
		}
		if *f.value < f.low || *f.value > f.high {
			return bad(f.name, "%d: %d to %d", *f.value, f.low, f.high)
		}
	}
	return nil
}

// Errors, to be tested with errors.Is. A transaction in which one of the first five occurred is voted No.
var (
	// ErrLocked says that another transaction has to do with the file.
	ErrLocked = errors.New("files: the file is locked")

	// ErrPath says that a path is none that a transaction may use.
	ErrPath = errors.New("files: bad path")

	// ErrLimit says that a transaction does more than the Config allows.
	ErrLimit = errors.New("files: limit exceeded")

	// ErrWork says that a participant's work is none of this resource.
	ErrWork = errors.New("files: malformed work")

	// ErrEnded says that the transaction is not open any more: it is prepared, or aborted.
	ErrEnded = errors.New("files: the transaction is not open")

	// ErrNotPrepared says that a transaction is to be committed that is neither prepared nor committed here. A txn.HeuristicError
	// comes with it, so that it is recorded as damage.
	ErrNotPrepared = errors.New("files: the transaction is not prepared")

	// ErrInUse says that another process, or this one, has the directory open.
	ErrInUse = errors.New("files: the directory is in use")

	// ErrFailed says that a sync failed: what is durable is not known any more. The resource does nothing until it is opened
	// again, which begins with what is on the disk.
	ErrFailed = errors.New("files: a sync failed")
)
