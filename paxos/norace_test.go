//go:build !race

package paxos_test

const racing = false
