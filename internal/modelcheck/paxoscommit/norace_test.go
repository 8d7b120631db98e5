//go:build !race

package paxoscommit

const racing = false
