//go:build !race

package raft_test

const racing = false
