package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Limits of what a client may send: below those of Redis, since all of it goes into one entry of
// the log.
const (
	maxBulk = 4 << 20 // bytes of one argument
	maxArgs = 1 << 16 // of one command
	maxLine = 64 << 10
	maxSize = 6 << 20 // bytes of one command
)

// Limits of Redis. What is above them has no meaning; what is above those here is read, and refused.
const (
	mostBulk = 512 << 20
	mostArgs = 1 << 20
)

// protocolError is what a client did wrong so that the rest of what it sends has no meaning.
type protocolError string

// Error implements error.
func (e protocolError) Error() string { return "Protocol error: " + string(e) }

// sizeError is a command that is too large, and was skipped.
type sizeError string

// Error implements error.
func (e sizeError) Error() string { return "ERR " + string(e) }

// reader reads commands of the Redis protocol (RESP2), or lines as a person types them.
type reader struct{ r *bufio.Reader }

func newReader(r io.Reader) *reader { return &reader{bufio.NewReaderSize(r, 64<<10)} }

// buffered reports whether more has arrived.
func (r *reader) buffered() bool { return r.r.Buffered() > 0 }

// line reads up to the end of a line, which it takes off.
func (r *reader) line() ([]byte, error) {
	var long []byte
	for {
		b, err := r.r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		if len(long)+len(b) > maxLine {
			return nil, protocolError("too big inline request")
		}
		if err == nil && long == nil {
			return bytes.TrimSuffix(b[:len(b)-1], []byte("\r")), nil
		}
		long = append(long, b...)
		if err == nil {
			return bytes.TrimSuffix(long[:len(long)-1], []byte("\r")), nil
		}
	}
}

// command reads the next command; an empty one is to be ignored. The arguments are the
// caller's.
func (r *reader) command() ([][]byte, error) {
	line, err := r.line()
	if err != nil {
		return nil, err
	}
	if len(line) == 0 || line[0] != '*' {
		return inline(line)
	}
	n, ok := number(line[1:])
	switch {
	case !ok || n > mostArgs:
		return nil, protocolError("invalid multibulk length")
	case n <= 0:
		return nil, nil
	}
	args := make([][]byte, 0, min(n, 64))
	size := int64(0)
	var large error
	if n > maxArgs {
		large = sizeError(fmt.Sprintf("a command of %d arguments: at most %d", n, maxArgs))
	}
	for range n {
		line, err := r.line()
		if err != nil {
			return nil, unexpected(err)
		}
		if len(line) == 0 || line[0] != '$' {
			got := byte('\r')
			if len(line) > 0 {
				got = line[0]
			}
			return nil, protocolError(fmt.Sprintf("expected '$', got %q", got))
		}
		length, ok := number(line[1:])
		if !ok || length < 0 || length > mostBulk {
			return nil, protocolError("invalid bulk length")
		}
		switch size += length; {
		case large != nil:
		case length > maxBulk:
			large = sizeError(fmt.Sprintf("an argument of %d bytes: at most %d", length, maxBulk))
		case size > maxSize:
			large = sizeError(fmt.Sprintf("a command of more than %d bytes", maxSize))
		}
		var arg [2]byte
		if large != nil {
			if args = nil; size > mostBulk {
				return nil, protocolError("command too large")
			}
			if _, err = io.CopyN(io.Discard, r.r, length); err == nil {
				_, err = io.ReadFull(r.r, arg[:])
			}
		} else {
			b := make([]byte, length+2)
			if _, err = io.ReadFull(r.r, b); err == nil {
				arg, args = [2]byte(b[length:]), append(args, b[:length:length])
			}
		}
		if err != nil {
			return nil, unexpected(err)
		}
		if arg != [2]byte{'\r', '\n'} {
			return nil, protocolError("a bulk string does not end where it should")
		}
	}
	return args, large
}

// unexpected is the end of a connection in the middle of a command.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// inline splits a line into words, which may stand in quotes: '…' with \' in it, or "…" with what \ means
// in C, and \xff. After a quote a word is over.
func inline(line []byte) ([][]byte, error) {
	const unbalanced = protocolError("unbalanced quotes in request")
	space := func(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }
	var args [][]byte
	for {
		line = bytes.TrimLeftFunc(line, func(r rune) bool { return r < 0x80 && space(byte(r)) })
		if len(line) == 0 {
			return args, nil
		}
		if len(args) == maxArgs {
			return nil, protocolError("too big inline request")
		}
		word := []byte{}
		for len(line) > 0 && !space(line[0]) {
			quote := line[0]
			if line = line[1:]; quote != '"' && quote != '\'' {
				word = append(word, quote)
				continue
			}
			for {
				if len(line) == 0 {
					return nil, unbalanced
				}
				c := line[0]
				if line = line[1:]; c == quote {
					break
				}
				if c == '\\' && len(line) > 0 && (quote == '"' || line[0] == '\'') {
					n := 1
					if c = line[0]; quote == '"' {
						c, n = escaped(line)
					}
					line = line[n:]
				}
				word = append(word, c)
			}
			if len(line) > 0 && !space(line[0]) {
				return nil, unbalanced
			}
		}
		args = append(args, word)
	}
}

// escaped returns the byte that follows a backslash stands for, and how long it is.
func escaped(b []byte) (byte, int) {
	if b[0] == 'x' && len(b) >= 3 {
		if n, err := strconv.ParseUint(string(b[1:3]), 16, 8); err == nil {
			return byte(n), 3
		}
	}
	if at := bytes.IndexByte([]byte("nrtba"), b[0]); at >= 0 {
		return "\n\r\t\b\a"[at], 1
	}
	return b[0], 1
}

func appendSimple(b []byte, s string) []byte { return append(append(append(b, '+'), s...), '\r', '\n') }
func appendOK(b []byte) []byte               { return append(b, "+OK\r\n"...) }
func appendNull(b []byte) []byte             { return append(b, "$-1\r\n"...) }

func appendError(b []byte, s string) []byte {
	return append(append(append(b, '-'), clip([]byte(s), 1024)...), '\r', '\n')
}

func appendHead(b []byte, kind byte, n int64) []byte {
	return append(strconv.AppendInt(append(b, kind), n, 10), '\r', '\n')
}

func appendInt(b []byte, n int64) []byte { return appendHead(b, ':', n) }
func appendArray(b []byte, n int) []byte { return appendHead(b, '*', int64(n)) }

func appendBulk(b, s []byte) []byte {
	return append(append(appendHead(b, '$', int64(len(s))), s...), '\r', '\n')
}

func appendStrings(b []byte, list []string) []byte {
	b = appendArray(b, len(list))
	for _, s := range list {
		b = appendBulk(b, []byte(s))
	}
	return b
}
