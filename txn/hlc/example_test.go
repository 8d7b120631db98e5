package hlc_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/synod-go/synod/transport/inproc"
	"github.com/synod-go/synod/txn/hlc"
)

// Two nodes of a cluster that lives in this process. What the second one does after it has heard of the first one's event is later.
func Example() {
	ctx := context.Background()
	network, err := inproc.New(ctx, inproc.Config{}) // between machines: a channel of a transport.Mux over tcp.Listen
	if err != nil {
		panic(err)
	}
	clocks := make(map[uint64]*hlc.Clock)
	for id := uint64(1); id <= 2; id++ {
		transport, err := network.Open(id)
		if err != nil {
			panic(err)
		}
		defer transport.Close()
		clocks[id], err = hlc.New(ctx, hlc.Config{Node: id, Peers: []uint64{1, 2}, Transport: transport})
		if err != nil {
			panic(err)
		}
		defer clocks[id].Close()
	}

	if err := clocks[1].Check(); err != nil {
		panic(err) // node 1 knows that its clock is wrong, and should give out nothing
	}
	sent := clocks[1].Now()
	if err := clocks[2].Update(sent); err != nil {
		panic(err) // one of the two clocks is wrong: node 2 refuses what came with it
	}
	fmt.Println("later:", clocks[2].Now() > sent)

	wrong := hlc.FromTime(time.Now().AddDate(1, 0, 0))
	err = clocks[2].Update(wrong)
	fmt.Println("a year ahead:", errors.Is(err, hlc.ErrOffset), clocks[2].Now() < wrong)
	// Output:
	// later: true
	// a year ahead: true true
}

func ExampleTimestamp() {
	t := hlc.FromTime(time.Date(2026, 11, 29, 23, 59, 59, 0, time.UTC))
	fmt.Println(t)
	fmt.Println(t.Next(), t.Next() > t)
	fmt.Println(t.Next().Time())
	// Output:
	// 2026-11-29T23:59:58.999986176Z#0
	// 2026-11-29T23:59:58.999986176Z#1 true
	// 2026-11-29 23:59:58.999986176 +0000 UTC
}

// What an operator sees of a node whose clock was set back while it was down.
func ExampleClock_Status() {
	stored := hlc.FromTime(time.Now().Add(time.Hour))
	clock, err := hlc.New(context.Background(), hlc.Config{Node: 7, Last: stored})
	if err != nil {
		panic(err)
	}
	defer clock.Close()
	s := clock.Status()
	var e *hlc.OffsetError
	fmt.Println(errors.As(s.Fenced, &e) && e.Cause == hlc.CauseBackwards, s.Last == stored, clock.Now() == stored.Next())
	// Output: true true true
}
