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

// protocolError is what a client did wrong so that the rest of what it sends has no meaning.
type protocolError string

// Error implements error.
func (e protocolError) Error() string { return "Protocol error: " + string(e) }

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

func number(b []byte) (int64, bool) {
	n, err := strconv.ParseInt(string(b), 10, 64)
	return n, err == nil
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
	case !ok || n > maxArgs:
		return nil, protocolError("invalid multibulk length")
	case n <= 0:
		return nil, nil
	}
	args := make([][]byte, 0, min(n, 64))
	size := int64(0)
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
		if !ok || length < 0 || length > maxBulk {
			return nil, protocolError("invalid bulk length")
		}
		if size += length; size > maxSize {
			return nil, protocolError("command too large")
		}
		arg := make([]byte, length+2)
		if _, err := io.ReadFull(r.r, arg); err != nil {
			return nil, unexpected(err)
		}
		if arg[length] != '\r' || arg[length+1] != '\n' {
			return nil, protocolError("a bulk string does not end where it should")
		}
		args = append(args, arg[:length:length])
	}
	return args, nil
}

// unexpected is the end of a connection in the middle of a command.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// inline splits a line into words, which may stand in quotes.
func inline(line []byte) ([][]byte, error) {
	var args [][]byte
	for {
		line = bytes.TrimLeft(line, " \t")
		if len(line) == 0 {
			return args, nil
		}
		var word []byte
		for len(line) > 0 && line[0] != ' ' && line[0] != '\t' {
			quote := line[0]
			if quote != '"' && quote != '\'' {
				word, line = append(word, line[0]), line[1:]
				continue
			}
			end := bytes.IndexByte(line[1:], quote)
			if end < 0 {
				return nil, protocolError("unbalanced quotes in request")
			}
			word, line = append(word, line[1:1+end]...), line[end+2:]
		}
		if word == nil {
			word = []byte{}
		}
		args = append(args, word)
	}
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
