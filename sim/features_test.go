package sim_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/sim"
	"github.com/synod-go/synod/storage"
)

// idle is a node that does nothing.
func idle(context.Context, *sim.Env) (func(), error) { return nil, nil }

// lines returns the lines of a run's log that contain a text, without their time.
func lines(log, text string) (found []string) {
	for line := range strings.Lines(log) {
		if strings.Contains(line, text) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

func TestFaultsThatAreDroppedLeaveTheOthersAsTheyAre(t *testing.T) {
	trouble := func(keep []int) []string {
		var log bytes.Buffer
		r := sim.Execute(sim.Config{Seed: 3, Keep: keep, Log: &log}, func(w *sim.World) {
			for id := uint64(1); id <= 5; id++ {
				w.AddNode(id, idle)
			}
			w.Trouble(w.Context(), time.Minute, sim.Atlas{Damaged: -1})
		})
		require.NoError(t, r.Err)
		require.Equal(t, r.Plan > 0, len(r.Planned) > 0)
		// What a fault does to a node that another one has crashed is another thing.
		return slices.DeleteFunc(lines(log.String(), ": "), func(l string) bool { return !strings.Contains(l, "fault") || strings.Contains(l, "options") })
	}
	all := trouble(nil)
	require.Greater(t, len(all), 20)
	require.Empty(t, trouble([]int{}))
	some := trouble([]int{2, 5, 11})
	require.LessOrEqual(t, len(some), 3)
	require.Subset(t, all, some)
}

func TestAnAtlasIsKeptTo(t *testing.T) {
	run := func(seed uint64, a sim.Atlas) (damaged []string, faults map[string]int) {
		r := sim.Execute(sim.Config{Seed: seed}, func(w *sim.World) {
			for id := uint64(1); id <= 5; id++ {
				w.AddNode(id, func(ctx context.Context, env *sim.Env) (func(), error) {
					var b storage.Batch
					b.Set([]byte("key"), []byte("value"))
					return nil, env.Store.Commit(&b)
				})
			}
			w.Trouble(w.Context(), time.Minute, a)
			for _, n := range w.Nodes() {
				if n.Damaged() != "" {
					damaged = append(damaged, n.Damaged())
				}
				if !n.Running() {
					w.Failf("healed", "node %d does not run", n.ID)
				}
			}
		})
		require.NoError(t, r.Err)
		return damaged, r.Faults
	}
	most := 0
	for seed := range uint64(40) {
		damaged, _ := run(seed, sim.Atlas{OldCopy: func(*sim.Disk) {}})
		most = max(most, len(damaged))
		damaged, _ = run(seed, sim.Atlas{Damaged: -1})
		require.Empty(t, damaged)
		damaged, faults := run(seed, sim.Atlas{Damaged: 5})
		require.NotContains(t, damaged, sim.Replaced, "there is no OldCopy")
		require.NotContains(t, faults, "disk replaced by an old copy")
		_, faults = run(seed, sim.Atlas{Kinds: []string{"crash", "pause"}})
		for kind := range faults {
			require.Contains(t, []string{"crash", "pause"}, kind)
		}
	}
	require.Equal(t, 2, most, "a minority")
	r := sim.Execute(sim.Config{}, func(w *sim.World) { w.Trouble(w.Context(), time.Second, sim.Atlas{Kinds: []string{"flood"}}) })
	require.ErrorContains(t, r.Err, `no kind of fault called "flood"`)
}

func TestFaultsStrikeTheTarget(t *testing.T) {
	struck := make(map[string]int)
	for seed := range uint64(100) {
		var log bytes.Buffer
		sim.Execute(sim.Config{Seed: seed, Log: &log}, func(w *sim.World) {
			for id := uint64(1); id <= 5; id++ {
				w.AddNode(id, idle)
			}
			w.Trouble(w.Context(), time.Minute, sim.Atlas{Kinds: []string{"pause"}, Target: func() uint64 { return 4 }})
		})
		for _, l := range lines(log.String(), "pause, node") {
			struck[l[len(l)-1:]]++
		}
	}
	for _, id := range []string{"1", "2", "3", "5"} {
		require.Positive(t, struck[id])
		require.Greater(t, struck["4"], struck[id]*3/2)
	}
}

func TestClocks(t *testing.T) {
	r := sim.Execute(sim.Config{}, func(w *sim.World) {
		var ctx context.Context
		n := w.AddNode(1, func(c context.Context, _ *sim.Env) (func(), error) {
			ctx = c
			return nil, nil
		})
		_ = sim.Sleep(w.Context(), time.Second)
		wall := sim.Now(ctx)
		n.SetClock(-time.Hour)
		if d := sim.Now(ctx).Sub(wall); d != -time.Hour {
			w.Failf("jump", "the clock on the wall jumped by %v", d)
		}
		n.SetDrift(0.25)
		start := w.Now()
		woke := time.Duration(0)
		sim.Go(ctx, func() {
			_ = sim.Sleep(ctx, 10*time.Second)
			woke = w.Now() - start
		})
		_ = sim.Sleep(w.Context(), time.Minute)
		if woke != 8*time.Second {
			w.Failf("drift", "ten seconds of a fast clock took %v", woke)
		}
		if a, b := sim.Rand(ctx).Uint64(), sim.Rand(ctx).Uint64(); a == b {
			w.Failf("random", "%d twice", a)
		}
	})
	require.NoError(t, r.Err)
}

func TestOutsideOfASimulation(t *testing.T) {
	ctx := t.Context()
	require.NoError(t, sim.Sleep(ctx, time.Microsecond))
	short, cancel := sim.WithTimeout(ctx, time.Microsecond)
	defer cancel()
	require.ErrorIs(t, sim.Sleep(short, time.Hour), context.DeadlineExceeded)
	require.WithinDuration(t, time.Now(), sim.Now(ctx), time.Minute)
	require.NotEqual(t, sim.Rand(ctx).Uint64(), sim.Rand(ctx).Uint64())
	done := make(chan bool)
	sim.Go(ctx, func() { close(done) })
	<-done
	sim.Sometimes("nothing", true)
	require.False(t, sim.Buggify("nothing"))
}

func TestRealTimeIsRefused(t *testing.T) {
	r := sim.Execute(sim.Config{}, func(w *sim.World) {
		ctx, cancel := context.WithTimeout(w.Context(), time.Hour)
		defer cancel()
		_ = sim.Sleep(ctx, time.Second)
	})
	require.ErrorContains(t, r.Err, "use sim.WithTimeout")
	require.Equal(t, "real time", r.Check)
}

func TestSitesAndBranches(t *testing.T) {
	taken, often := 0, 0
	for seed := range uint64(100) {
		r := sim.Execute(sim.Config{Seed: seed}, func(w *sim.World) {
			for i := range 1000 {
				sim.Sometimes("never", false)
				sim.Sometimes("in the middle", i == 500)
				sim.Buggify("branch")
			}
			w.Heal()
			if sim.Buggify("branch") {
				w.Failf("healed", "a rare branch was taken")
			}
		})
		require.NoError(t, r.Err)
		require.Equal(t, map[string]int{"never": 0, "in the middle": 1}, r.Sites)
		if n := r.Forced["branch"]; n > 0 {
			taken++
			often = max(often, n)
		}
	}
	require.Greater(t, taken, 30)
	require.Less(t, taken, 70, "half of the seeds do without")
	require.Greater(t, often, 100)
}

// A system that fails when two certain things have happened: Shrink finds them.
func TestShrink(t *testing.T) {
	system := func(w *sim.World) {
		for id := uint64(1); id <= 3; id++ {
			w.AddNode(id, idle)
		}
		crashed, cut := false, false
		w.Check("both", func() error {
			crashed = crashed || !w.Node(2).Running()
			cut = cut || w.Link(1, 3).Broken()
			if crashed && cut {
				return errors.New("node 2 has crashed and node 1 was cut off from node 3")
			}
			return nil
		})
		w.Trouble(w.Context(), time.Minute, sim.Atlas{Damaged: -1})
	}
	shrunk := 0
	for seed := range uint64(30) {
		failed := sim.Execute(sim.Config{Seed: seed}, system)
		if failed.Err == nil {
			continue
		}
		require.Equal(t, "both", failed.Check)
		small, runs := sim.Shrink(failed, 300, system)
		require.LessOrEqual(t, runs, 300)
		require.NotEmpty(t, small.Config.Keep)
		require.LessOrEqual(t, len(small.Config.Keep), 2)
		again := sim.Execute(small.Config, system)
		require.Equal(t, small.Hash, again.Hash)
		require.Equal(t, "both", again.Check)
		shrunk++
	}
	require.Greater(t, shrunk, 5)
}

func TestReplay(t *testing.T) {
	system := func(w *sim.World) {
		w.AddNode(1, idle)
		w.Trouble(w.Context(), time.Minute, sim.Atlas{Kinds: []string{"crash"}})
		w.Failf("end", "seed %d", w.Seed())
	}
	r := &recorder{}
	sim.Run(r, 5, system)
	require.Contains(t, r.text, "end: seed 5")
	require.Contains(t, r.text, "SYNOD_SIM='seed=5 keep=' go test")

	t.Setenv("SYNOD_SIM", "seed=9 keep=")
	require.Equal(t, []uint64{9}, slices.Collect(sim.Seeds(1, 100)))
	result := sim.Run(r, 5, system)
	require.Contains(t, r.text, "end: seed 9")
	require.Empty(t, result.Faults)

	for value, want := range map[string]string{
		"seed=x":        "invalid syntax",
		"seed=1 keep=a": "invalid syntax",
		"fish=1":        "want seed=NUMBER",
	} {
		t.Setenv("SYNOD_SIM", value)
		sim.Run(r, 5, system)
		require.Contains(t, r.text, want)
	}
	t.Setenv("SYNOD_SIM", "")
	require.Equal(t, []uint64{3, 4}, slices.Collect(sim.Seeds(3, 2)))
}

func TestBadConfig(t *testing.T) {
	for field, c := range map[string]sim.Config{
		"MaxTime":    {MaxTime: -1},
		"Delay":      {Delay: -1},
		"Jitter":     {Jitter: -1},
		"Sync":       {Sync: -1},
		"TraceLines": {TraceLines: -1},
	} {
		r := sim.Execute(c, func(*sim.World) { t.Error("it ran") })
		require.ErrorContains(t, r.Err, "Config."+field)
	}
	r := sim.Execute(sim.Config{MaxTime: time.Second}, func(w *sim.World) { _ = sim.Sleep(w.Context(), time.Hour) })
	require.ErrorContains(t, r.Err, "MaxTime")
}

// Whatever a run leaves behind is gone when it is over.
func TestNothingRemains(t *testing.T) {
	system := func(w *sim.World) {
		for id := uint64(1); id <= 3; id++ {
			w.AddNode(id, func(ctx context.Context, env *sim.Env) (func(), error) {
				sim.Go(ctx, func() { forever(w) })
				return nil, sim.Sleep(ctx, time.Hour)
			})
		}
		w.Go(func(context.Context) { forever(w) })
		_ = sim.Sleep(w.Context(), time.Second)
		switch w.Seed() % 3 {
		case 1:
			w.Failf("early", "enough")
			forever(w)
		case 2:
			panic("enough")
		}
	}
	before := runtime.NumGoroutine()
	for seed := range uint64(30) {
		sim.Execute(sim.Config{Seed: seed}, system)
	}
	require.LessOrEqual(t, runtime.NumGoroutine(), before+1)
}

func TestDisks(t *testing.T) {
	var store storage.Store
	set := func(w *sim.World, value string) {
		var b storage.Batch
		b.Set([]byte("key"), []byte(value))
		if err := store.Commit(&b); err != nil {
			w.Fail(err)
		}
	}
	get := func() string {
		v, err := store.Get([]byte("key"))
		if err != nil {
			return err.Error()
		}
		return string(v)
	}
	r := sim.Execute(sim.Config{}, func(w *sim.World) {
		n := w.AddNode(1, func(_ context.Context, env *sim.Env) (func(), error) {
			store = env.Store
			return nil, nil
		})
		restart := func(between func()) string {
			n.Crash()
			between()
			n.Start()
			_ = sim.Sleep(w.Context(), time.Millisecond)
			return get()
		}
		_ = sim.Sleep(w.Context(), time.Millisecond)
		set(w, "old")
		copied := n.Disk.Copy()
		set(w, "new")
		for _, c := range []struct {
			what, want string
			do         func()
		}{
			{"crash", "new", func() {}},
			{"restore", "old", func() { n.Disk.Restore(copied) }},
			{"write", "by hand", func() {
				var b storage.Batch
				b.Set([]byte("key"), []byte("by hand"))
				n.Disk.Write(&b)
			}},
			{"lose", "not found", n.Disk.Lose},
		} {
			if got := restart(c.do); !strings.Contains(got, c.want) {
				w.Failf("disk", "%s: %q", c.what, got)
			}
		}
		set(w, "flip me")
		if got := restart(func() { n.Disk.Flip(rand.New(rand.NewPCG(1, 1))) }); got == "flip me" || len(got) != len("flip me") {
			w.Failf("disk", "flipped: %q", got)
		}
		if n.Disk.Generation() != 2 {
			w.Failf("disk", "generation %d", n.Disk.Generation())
		}
	})
	require.NoError(t, r.Err)
}

// What is durable can be read while the node runs, and is what a crash would leave at least.
func TestReadDurable(t *testing.T) {
	r := sim.Execute(sim.Config{Seed: 1}, func(w *sim.World) {
		var store storage.AsyncCommitter
		n := w.AddNode(1, func(_ context.Context, env *sim.Env) (func(), error) {
			store = env.Store.(storage.AsyncCommitter)
			return nil, nil
		})
		_ = sim.Sleep(w.Context(), time.Millisecond)
		durable := n.Disk.Durable()
		var b storage.Batch
		b.Set([]byte("key"), []byte("value"))
		store.CommitAsync(&b, func(error) {})
		if _, err := durable.Get([]byte("key")); !errors.Is(err, storage.ErrNotFound) {
			w.Failf("durable", "before the sync: %v", err)
		}
		_ = sim.Sleep(w.Context(), 10*time.Millisecond)
		it, err := durable.Scan(nil, nil)
		if err != nil {
			w.Fail(err)
			return
		}
		keys, values, err := storage.Collect(it)
		if err != nil || len(keys) != 1 || string(values[0]) != "value" {
			w.Failf("durable", "after the sync: %q: %q, %v", keys, values, err)
		}
		if err := durable.Commit(&b); err == nil {
			w.Failf("durable", "it takes commits")
		}
	})
	require.NoError(t, r.Err)
}

func ExampleShrink() {
	// A node that fails whenever it crashes: one fault is enough.
	system := func(w *sim.World) {
		n := w.AddNode(1, idle)
		w.Check("it runs", func() error {
			if !n.Running() {
				return errors.New("the node is down")
			}
			return nil
		})
		w.Trouble(w.Context(), time.Minute, sim.Atlas{Kinds: []string{"crash", "clock jumps"}})
	}
	for seed := range sim.Seeds(1, 100) {
		failed := sim.Execute(sim.Config{Seed: seed}, system)
		if failed.Err == nil {
			continue
		}
		small, _ := sim.Shrink(failed, 100, system)
		fmt.Println(small.Err, "after", small.Faults)
		break
	}
	// Output: it runs: the node is down after map[crash:1]
}

func ExampleSometimes() {
	r := sim.Execute(sim.Config{Seed: 1}, func(w *sim.World) {
		for attempts := 1; ; attempts++ {
			_ = sim.Sleep(w.Context(), time.Second)
			if w.Rand().IntN(3) == 0 {
				sim.Sometimes("more than one attempt", attempts > 1)
				return
			}
		}
	})
	fmt.Println(len(r.Sites))
	// Output: 1
}

func ExampleLink() {
	r := sim.Execute(sim.Config{}, func(w *sim.World) {
		for id := uint64(1); id <= 2; id++ {
			w.AddNode(id, func(_ context.Context, env *sim.Env) (func(), error) {
				env.Transport.Handle(func(from uint64, payload []byte) { fmt.Printf("node %d got %s\n", env.ID, payload) })
				return nil, env.Transport.Send(3-env.ID, fmt.Append(nil, "hello from ", env.ID))
			})
		}
		w.Link(1, 2).Cut = true // one way
		_ = sim.Sleep(w.Context(), time.Second)
	})
	fmt.Println(r.Err)
	// Output:
	// node 1 got hello from 2
	// <nil>
}
