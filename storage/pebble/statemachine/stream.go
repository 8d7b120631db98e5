package statemachine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"regexp"
	"sync"
)

// A snapshot is the files of a checkpoint, ascending by name. Numbers are big endian,
// sums CRC32C; each sum but that of a file's bytes continues the one before it, so that
// the last one covers all others.
//
//	head    "synodPSM", version (1 byte), index (8), number of files (4), sum (4)
//	file    length of the name (1), name, size (8), sum (4), bytes, sum of the bytes (4)
//	end     sum (4)
const (
	streamMagic   = "synodPSM"
	streamVersion = 1

	maxFiles    = 1 << 20
	maxFileSize = 1 << 40
	maxName     = 64
)

// streamName is what a file of a checkpoint is called. What is called otherwise is
// neither sent nor accepted, anything with a path above all. There is no write-ahead
// log: what it would hold was flushed.
var streamName = regexp.MustCompile(`^(\d{6,20}\.sst|MANIFEST-\d{6,20}|OPTIONS-\d{6,20}|marker\.(manifest|format-version)\.\d{6,20}\.(\d{3,20}|MANIFEST-\d{6,20}))$`)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// buffers are for copying files.
var buffers = sync.Pool{New: func() any { return new([128 << 10]byte) }}

// streamWriter writes a snapshot.
type streamWriter struct {
	w    io.Writer
	n    int64
	sum  uint32
	head []byte
}

func (w *streamWriter) write(p []byte) error {
	n, err := w.w.Write(p)
	w.n += int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}

// seal writes what stands in head, and its sum.
func (w *streamWriter) seal() error {
	w.sum = crc32.Update(w.sum, castagnoli, w.head)
	w.head = binary.BigEndian.AppendUint32(w.head, w.sum)
	err := w.write(w.head)
	w.head = w.head[:0]
	return err
}

func (w *streamWriter) begin(index uint64, files int) error {
	w.head = append(w.head[:0], streamMagic...)
	w.head = append(w.head, streamVersion)
	w.head = binary.BigEndian.AppendUint64(w.head, index)
	w.head = binary.BigEndian.AppendUint32(w.head, uint32(files))
	return w.seal()
}

// file writes size bytes of r.
func (w *streamWriter) file(name string, size int64, r io.Reader) error {
	w.head = append(w.head[:0], byte(len(name)))
	w.head = append(w.head, name...)
	w.head = binary.BigEndian.AppendUint64(w.head, uint64(size))
	if err := w.seal(); err != nil {
		return err
	}
	buf := buffers.Get().(*[128 << 10]byte)
	defer buffers.Put(buf)
	sum := uint32(0)
	for left := size; left > 0; {
		p := buf[:min(left, int64(len(buf)))]
		if _, err := io.ReadFull(r, p); err != nil {
			return &fileError{err}
		}
		sum = crc32.Update(sum, castagnoli, p)
		if err := w.write(p); err != nil {
			return err
		}
		left -= int64(len(p))
	}
	w.sum = crc32.Update(w.sum, castagnoli, binary.BigEndian.AppendUint32(nil, sum))
	return w.write(binary.BigEndian.AppendUint32(nil, sum))
}

func (w *streamWriter) end() error {
	return w.write(binary.BigEndian.AppendUint32(nil, w.sum))
}

// fileError is an error of a local file, and not of the stream.
type fileError struct{ err error }

// Error implements error.
func (e *fileError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *fileError) Unwrap() error { return e.err }

// streamReader reads a snapshot. Its errors are *storage.CorruptError for what it can't
// believe, and those of the reader.
type streamReader struct {
	r     io.Reader
	sum   uint32
	index uint64
	files uint32 // that follow
	last  string // name of the last one
	buf   [maxName + 16]byte
}

// streamFile is what a file is called in errors about a snapshot.
const streamFile = "snapshot"

// read fills p.
func (r *streamReader) read(p []byte) error {
	_, err := io.ReadFull(r.r, p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return corrupt(streamFile, "it is cut off")
	}
	if err != nil {
		return fmt.Errorf("read the snapshot: %w", err)
	}
	return nil
}

// check reads the sum that follows.
func (r *streamReader) check(what string, sum uint32) error {
	p := r.buf[len(r.buf)-4:]
	if err := r.read(p); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(p) != sum {
		return corrupt(streamFile, "checksum mismatch: %s was altered", what)
	}
	return nil
}

func (r *streamReader) begin() error {
	p := r.buf[:len(streamMagic)+1+8+4]
	if err := r.read(p); err != nil {
		return err
	}
	if string(p[:len(streamMagic)]) != streamMagic {
		return corrupt(streamFile, "it is not a snapshot of a state machine on Pebble")
	}
	r.sum = crc32.Checksum(p, castagnoli)
	if err := r.check("its head", r.sum); err != nil {
		return err
	}
	p = p[len(streamMagic):]
	if p[0] != streamVersion {
		return corrupt(streamFile, "it has version %d, this library reads version %d", p[0], streamVersion)
	}
	r.index, r.files = binary.BigEndian.Uint64(p[1:]), binary.BigEndian.Uint32(p[9:])
	if r.files > maxFiles {
		return corrupt(streamFile, "it has %d files, more than %d", r.files, maxFiles)
	}
	return nil
}

// next reads the head of a file. create is then called with its name and size, and
// what it returns takes the bytes.
func (r *streamReader) next(create func(name string, size int64) (io.WriteCloser, error)) error {
	r.files--
	p := r.buf[:1]
	if err := r.read(p); err != nil {
		return err
	}
	n := int(p[0])
	if n == 0 || n > maxName {
		return corrupt(streamFile, "the name of a file has %d bytes", n)
	}
	p = r.buf[:1+n+8]
	if err := r.read(p[1:]); err != nil {
		return err
	}
	r.sum = crc32.Update(r.sum, castagnoli, p)
	if err := r.check("the head of a file", r.sum); err != nil {
		return err
	}
	name, size := string(p[1:1+n]), binary.BigEndian.Uint64(p[1+n:])
	switch {
	case !streamName.MatchString(name):
		return corrupt(streamFile, "%q is not the name of a file of a snapshot", name)
	case name <= r.last:
		return corrupt(streamFile, "%s follows %s: it is there twice, or out of order", name, r.last)
	case size > maxFileSize:
		return corrupt(streamFile, "%s has %d bytes, more than %d", name, size, maxFileSize)
	}
	r.last = name
	w, err := create(name, int64(size))
	if err != nil {
		return err
	}
	err = r.copy(name, w, int64(size))
	if closed := w.Close(); err == nil {
		err = closed
	}
	return err
}

func (r *streamReader) copy(name string, w io.Writer, size int64) error {
	buf := buffers.Get().(*[128 << 10]byte)
	defer buffers.Put(buf)
	sum := uint32(0)
	for left := size; left > 0; {
		p := buf[:min(left, int64(len(buf)))]
		if err := r.read(p); err != nil {
			return err
		}
		sum = crc32.Update(sum, castagnoli, p)
		if _, err := w.Write(p); err != nil {
			return err
		}
		left -= int64(len(p))
	}
	if err := r.check(name, sum); err != nil {
		return err
	}
	r.sum = crc32.Update(r.sum, castagnoli, binary.BigEndian.AppendUint32(nil, sum))
	return nil
}

// end reads the end, after which nothing may follow.
func (r *streamReader) end() error {
	if err := r.check("the list of its files", r.sum); err != nil {
		return err
	}
	switch n, err := io.ReadFull(r.r, r.buf[:1]); {
	case n > 0:
		return corrupt(streamFile, "something follows its end")
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("read the snapshot: %w", err)
	}
	return nil
}
