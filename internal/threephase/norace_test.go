//go:build !race

package threephase

const racing = false
