// Package txn is atomic commitment.
//
// # Usage
//
// # Limits
package txn
