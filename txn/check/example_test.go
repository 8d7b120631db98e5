package check_test

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/synod-go/synod/txn/check"
)

// Two clients read both lists and append each to another one, as if they were alone.
func ExampleRecorder() {
	var recorder check.Recorder
	alice, bob := recorder.Begin(1), recorder.Begin(2)
	// … each begins a transaction with the database …
	alice.Read("x")
	bob.Read("y")
	alice.Append("y", recorder.Unique())
	bob.Append("x", recorder.Unique())
	// … and both are told that they have committed.
	alice.Commit()
	bob.Commit()

	report, err := recorder.History().Check(check.Config{Model: check.Serializable})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(report)
	// Output:
	// not serializable: 2 transactions committed, 0 aborted, 0 unknown
	//
	// G2-item: write skew, or another cycle with adjacent anti-dependencies
	//   T0 (process 1, 1 to 3): read x []; append y 1
	//   T1 (process 2, 2 to 4): read y []; append x 2
	//   T0 before T1: T0 saw nothing in x, and not the 2 that T1 appended, which nobody has seen
	//   T1 before T0: T1 saw nothing in y, and not the 1 that T0 appended, which nobody has seen
	//   so: T0 -rw-> T1 -rw-> T0
	//
	// ruled out: strict serializable, strong session serializable, serializable, repeatable read
}

// A library that executes a function again until it commits: each execution is a
// transaction of its own.
func ExampleRecording() {
	conflict := errors.New("conflict")
	update := func(f func() error) (err error) { // stands for the library
		for err = f(); errors.Is(err, conflict); err = f() {
		}
		return err
	}

	var recorder check.Recorder
	var tx *check.Recording
	attempts := 0
	err := update(func() error {
		if tx != nil {
			tx.Abort() // the library says that it was not executed
		}
		tx = recorder.Begin(1)
		tx.Append("x", recorder.Unique())
		if attempts++; attempts == 1 {
			return conflict
		}
		return nil
	})
	if err != nil {
		tx.Unknown()
	} else {
		tx.Commit()
	}
	for _, t := range recorder.History().Transactions {
		fmt.Println(t.Outcome, t.Operations)
	}
	// Output:
	// aborted [append x 1]
	// committed [append x 2]
}

// A history that was saved, checked later.
func ExampleReadHistory() {
	saved := `{"process":1,"begin":1,"end":4,"outcome":"committed","operations":[["append","x",1],["read","y",[]]]}
{"process":2,"begin":2,"outcome":"unknown","operations":[["write","y",2]]}
{"process":3,"begin":5,"end":6,"outcome":"committed","operations":[["scan","a","",{"x":[1],"y":[2]}]]}
`
	history, err := check.ReadHistory(bytes.NewBufferString(saved))
	if err != nil {
		fmt.Println(err)
		return
	}
	report, err := history.Check(check.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(report.OK(), report.Err())
	fmt.Print(report)
	// Output:
	// true <nil>
	// no contradiction to strict serializable: 2 transactions committed, 0 aborted, 1 unknown (1 of them observed)
}

// What was found, as data. Two clients have updated the same version of a register.
func ExampleReport() {
	history := check.History{Transactions: []check.Transaction{
		{Outcome: check.Committed, Operations: []check.Operation{{Kind: check.Read, Key: "x"}, {Kind: check.Write, Key: "x", Value: 1}}},
		{Outcome: check.Committed, Operations: []check.Operation{{Kind: check.Read, Key: "x"}, {Kind: check.Write, Key: "x", Value: 2}}},
	}}
	report, err := history.Check(check.Config{Model: check.SnapshotIsolation})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, a := range report.Anomalies {
		fmt.Println(a.Kind, a.Key, a.Transactions, a.Reason)
	}
	fmt.Println(errors.Is(report.Err(), check.ErrViolation))
	// Output:
	// lost-update x [0 1] T0 and T1 each read x, found nothing there, and wrote it
	// true
}
