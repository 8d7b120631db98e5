//go:build unix && !solaris && !aix && !illumos

package files

import (
	"errors"
	"os"
	"syscall"
)

// lockFile takes a lock that ends with the file, or with the process.
func lockFile(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EWOULDBLOCK):
			return errLocked
		}
		return err
	}
}
