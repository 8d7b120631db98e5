//go:build !race

package twophase

const racing = false
