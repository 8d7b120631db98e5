//go:build !race

package statemachine_test

const raceEnabled = false
