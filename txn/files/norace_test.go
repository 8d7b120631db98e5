//go:build !race

package files

const racing = false
