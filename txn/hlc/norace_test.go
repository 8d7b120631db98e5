//go:build !race

package hlc_test

const racing = false
