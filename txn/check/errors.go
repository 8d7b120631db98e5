package check

import (
	"errors"
	"fmt"
)

// What is wrong, to be tested with errors.Is.
var (
	// ErrHistory says that a history can't be checked: it is damaged, or contradicts
	// itself.
	ErrHistory = errors.New("check: bad history")

	// ErrViolation says that a history shows what its model excludes.
	ErrViolation = errors.New("check: violation")
)

// ConfigError says which field of [Config] is wrong, and what to do about it.
type ConfigError struct {
	Field  string // "Config.Model"
	Reason string // what is wrong, and the remedy
}

// Error implements error.
func (e *ConfigError) Error() string { return fmt.Sprintf("check: %s: %s", e.Field, e.Reason) }

// HistoryError says what in a history can't be. It is an [ErrHistory]: the mistake is that
// of who recorded it, not of the database.
type HistoryError struct {
	Transaction int    // where it stands in the history
	Operation   int    // where it stands in the transaction; -1: the transaction as a whole
	Reason      string // what is wrong, and the remedy
}

// Error implements error.
func (e *HistoryError) Error() string {
	if e.Operation < 0 {
		return fmt.Sprintf("check: bad history: T%d: %s", e.Transaction, e.Reason)
	}
	return fmt.Sprintf("check: bad history: T%d, operation %d: %s", e.Transaction, e.Operation, e.Reason)
}

// Unwrap returns [ErrHistory].
func (e *HistoryError) Unwrap() error { return ErrHistory }

// DecodeError says where an encoded history is damaged. It is an [ErrHistory].
type DecodeError struct {
	Transaction int   // how many transactions were read before it
	Err         error // what is wrong with the next one
}

// Error implements error.
func (e *DecodeError) Error() string {
	return fmt.Sprintf("check: bad history: after %d transactions: %v", e.Transaction, e.Err)
}

// Unwrap returns [ErrHistory] and what is wrong.
func (e *DecodeError) Unwrap() []error { return []error{ErrHistory, e.Err} }

// ViolationError is the error of a history that is not what it should be. It is an
// [ErrViolation].
type ViolationError struct {
	Report *Report // what was found
}

// Error returns the report in words.
func (e *ViolationError) Error() string { return e.Report.String() }

// Unwrap returns [ErrViolation].
func (e *ViolationError) Unwrap() error { return ErrViolation }
