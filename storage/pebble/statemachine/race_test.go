//go:build race

package statemachine_test

const raceEnabled = true
