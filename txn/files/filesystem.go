package files

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// fileSystem is all that this package does with files. Names are relative to the resource's directory, with slashes; "." is
// that itself. Nothing is durable but what was synced: the content of a file with file.Sync, the names in a directory with
// syncDir. Tests have one that crashes.
type fileSystem interface {
	create(name string) (file, error) // a new one: fs.ErrExist if there is one
	open(name string) (io.ReadCloser, error)
	list(dir string) ([]string, error)
	stat(name string) (kind, int64, error) // of what has the name, not of what it points to
	mkdir(name string) error
	link(old, new string) error // a second name; fs.ErrExist if there is one
	rename(old, new string) error
	remove(name string) error // also an empty directory
	syncDir(name string) error
	lock(name string) (io.Closer, error) // errLocked: somebody else has it
	close() error
}

type file interface {
	io.WriteCloser
	Sync() error
}

// kind is what a name stands for.
type kind uint8

const (
	kindNothing kind = iota
	kindFile
	kindDirectory
	kindOther // a symbolic link, a device, …
)

var errLocked = errors.New("files: locked")

// osFiles is a directory of the operating system. What leads out of it, by symbolic links too, os.Root refuses.
type osFiles struct {
	root              *os.Root
	fileMode, dirMode fs.FileMode
}

func (o *osFiles) create(name string) (file, error) {
	f, err := o.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, o.fileMode)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (o *osFiles) open(name string) (io.ReadCloser, error) {
	f, err := o.root.Open(name)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (o *osFiles) list(dir string) ([]string, error) {
	f, err := o.root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (o *osFiles) stat(name string) (kind, int64, error) {
	info, err := o.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return kindNothing, 0, nil
	case err != nil:
		return kindNothing, 0, err
	case info.Mode().IsRegular():
		return kindFile, info.Size(), nil
	case info.IsDir():
		return kindDirectory, 0, nil
	}
	return kindOther, 0, nil
}

func (o *osFiles) mkdir(name string) error      { return o.root.Mkdir(name, o.dirMode) }
func (o *osFiles) link(old, new string) error   { return o.root.Link(old, new) }
func (o *osFiles) rename(old, new string) error { return o.root.Rename(old, new) }
func (o *osFiles) remove(name string) error     { return o.root.Remove(name) }
func (o *osFiles) close() error                 { return o.root.Close() }

func (o *osFiles) syncDir(name string) error {
	f, err := o.root.Open(name)
	if err != nil {
		return err
	}
	err = f.Sync()
	return errors.Join(err, f.Close())
}

func (o *osFiles) lock(name string) (io.Closer, error) {
	f, err := o.root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
