// Package paxoscommit is
package paxoscommit
