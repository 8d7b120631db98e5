package kv

import (
	"errors"
	"fmt"
)

// Errors, to be tested with errors.Is. Those of the functions that Update and View are given come back as they are.
var (
	// ErrNotFound says that a key has no value.
	ErrNotFound = errors.New("kv: not found")

	// ErrConflict says that others were faster, Config.MaxAttempts times. Nothing was committed.
	ErrConflict = errors.New("kv: too many conflicts")

	// ErrMismatch says that a key did not have what was expected. Nothing was committed. The error is a *MismatchError.
	ErrMismatch = errors.New("kv: a key does not have what was expected")

	// ErrTooOld says that a timestamp is below what Config.Retention keeps.
	ErrTooOld = errors.New("kv: versions of that time are not kept any more")

	// ErrInvalid says that an argument is out of bounds, or that a Tx is used after its function has returned.
	ErrInvalid = errors.New("kv: invalid request")
)

// MismatchError names the key that did not have what Tx.Expect or Tx.ExpectAbsent said. It matches ErrMismatch.
type MismatchError struct{ Key []byte }

// Error implements error.
func (e *MismatchError) Error() string { return fmt.Sprintf("%v: %q", ErrMismatch, e.Key) }

// Is makes the error match ErrMismatch.
func (e *MismatchError) Is(target error) bool { return target == ErrMismatch }

// errRetry says that the attempt can't be committed any more.
var errRetry = errors.New("kv: what was read has changed")
