//go:build !race

package txn_test

const racing = false
