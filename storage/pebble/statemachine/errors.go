package statemachine

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	engine "github.com/cockroachdb/pebble/v2"

	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/pebble"
)

// ErrTooLarge says that one command wrote more than 1 GiB. Every replica refuses it
// alike, by a panic that stops the group: Config.Apply has to look at what a command
// asks for.
var ErrTooLarge = errors.New(packageName + ": a command writes too much")

// ErrOutOfOrder says that the machine was given a command that does not follow those
// that it has. A machine is opened anew for each start of its group: what it holds in
// memory is ahead of what it says is durable.
var ErrOutOfOrder = errors.New(packageName + ": command out of order")

func unusable(dir, problem string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		problem += ": give this process the right to write there, or name another directory"
	case errors.Is(err, syscall.EROFS):
		problem += ": its file system is mounted read-only: mount it for writing, or name another directory"
	case errors.Is(err, syscall.ENOTDIR):
		problem += ": a part of its path is a file: name another directory"
	case isNoSpace(err):
		problem, err = problem+": make room on the disk", fmt.Errorf("%w: %w", storage.ErrNoSpace, err)
	}
	return &pebble.DirError{Dir: dir, Problem: problem, Err: err}
}

func lockError(dir string, err error) error {
	// The lock call itself fails with a bare error number, or with words for a lock of
	// this process; everything else is about the file.
	var errno syscall.Errno
	if errors.As(err, &errno) && (errno == syscall.EAGAIN || errno == syscall.EACCES && !errors.As(err, new(*fs.PathError))) ||
		strings.Contains(err.Error(), "lock held by current process") {
		return &pebble.DirError{Dir: dir, Problem: "it is in use: close the state machine, or stop the process, that has it open, or name another directory",
			Err: fmt.Errorf("%w: %w", storage.ErrLocked, err)}
	}
	return unusable(dir, "it can't be written", err)
}

// fileName finds the name of one of Pebble's files in a message.
var fileName = regexp.MustCompile(`\b(\d{6,}\.(sst|log)|MANIFEST-\d{6,}|OPTIONS-\d{6,})\b`)

// engineError translates an error that Pebble returned: corruption into a
// *storage.CorruptError, a full disk into one that wraps storage.ErrNoSpace.
func engineError(dir, doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case engine.IsCorruptionError(err), errors.Is(err, fs.ErrNotExist),
		errors.Is(err, engine.ErrDBDoesNotExist), errors.Is(err, engine.ErrDBAlreadyExists), errors.Is(err, engine.ErrDBNotPristine):
		c := &storage.CorruptError{File: dir, Reason: doing + ": " + err.Error()}
		if info := engine.ExtractDataCorruptionInfo(err); info != nil && info.Path != "" {
			c.File = info.Path
		} else if file := fileName.FindString(fmt.Sprintf("%+v", err)); file != "" {
			c.File = filepath.Join(dir, file)
		}
		return c
	case isNoSpace(err):
		return fmt.Errorf("%w: %s: %s: %s: %w", storage.ErrNoSpace, packageName, dir, doing, err)
	}
	return fmt.Errorf("%s: %s: %s: %w", packageName, dir, doing, err)
}

// corrupt says what can't be believed.
func corrupt(file, format string, args ...any) error {
	return &storage.CorruptError{File: file, Reason: fmt.Sprintf(format, args...)}
}
