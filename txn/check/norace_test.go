//go:build !race

package check

const scale = 1
