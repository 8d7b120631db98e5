//go:build !race

package twophase_test

const racing = false
