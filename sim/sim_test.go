package sim_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/sim"
	"github.com/synod-go/synod/storage"
)

// pinger sends to its neighbour now and then, and counts what it gets.
func pinger(got map[uint64]int, stored *int) func(ctx context.Context, env *sim.Env) (func(), error) {
	return func(ctx context.Context, env *sim.Env) (func(), error) {
		env.Transport.Handle(func(from uint64, payload []byte) { got[env.ID] += len(payload) })
		for i := 0; ; i++ {
			if err := sim.Sleep(ctx, 10*time.Millisecond); err != nil {
				return nil, err
			}
			_ = env.Transport.Send(env.ID%3+1, []byte("ping"))
			var b storage.Batch
			b.Set([]byte(fmt.Sprint("key", i)), []byte("value"))
			if err := env.Store.Commit(&b); err == nil {
				*stored++
			}
		}
	}
}

func troubled(seed uint64) (sim.Result, map[uint64]int) {
	got := make(map[uint64]int)
	stored := 0
	r := sim.Execute(sim.Config{Seed: seed}, func(w *sim.World) {
		for id := uint64(1); id <= 3; id++ {
			w.AddNode(id, pinger(got, &stored))
		}
		w.Trouble(w.Context(), 20*time.Second, sim.Atlas{OldCopy: func(*sim.Disk) {}})
		if sim.Sleep(w.Context(), time.Second) != nil || stored == 0 {
			w.Fail(errors.New("nothing was stored"))
		}
	})
	return r, got
}

func TestTheSameSeedGivesTheSameTrace(t *testing.T) {
	hashes := make(map[uint64]bool)
	for seed := uint64(1); seed <= 10; seed++ {
		a, gotA := troubled(seed)
		b, gotB := troubled(seed)
		require.NoError(t, a.Err)
		require.Equal(t, a, b)
		require.Equal(t, gotA, gotB)
		hashes[a.Hash] = true
	}
	require.Len(t, hashes, 10, "another seed gives another trace")
}

func TestEveryKindOfFaultHappens(t *testing.T) {
	seen := make(map[string]int)
	for seed := uint64(1); seed <= 40; seed++ {
		r, _ := troubled(seed)
		require.NoError(t, r.Err)
		for k, n := range r.Faults {
			seen[k] += n
		}
	}
	require.GreaterOrEqual(t, len(seen), 25, "%v", seen)
}

func TestACrashEndsTasksAndLosesWhatIsNotDurable(t *testing.T) {
	for seed := uint64(1); seed <= 50; seed++ {
		sim.Run(t, seed, func(w *sim.World) {
			ctx := w.Context()
			acknowledged, after := 0, false
			n := w.AddNode(1, func(ctx context.Context, env *sim.Env) (func(), error) {
				// What was acknowledged before the crash is there, and no later commit without an
				// earlier one.
				gap := false
				for i := range 1000 {
					_, err := env.Store.Get([]byte(fmt.Sprintf("%04d", i)))
					if errors.Is(err, storage.ErrNotFound) {
						if i < acknowledged {
							w.Fail(fmt.Errorf("commit %d was acknowledged and is lost", i))
						}
						gap = true
					} else if gap {
						w.Fail(fmt.Errorf("commit %d is there, but an earlier one is not", i))
					}
				}
				if acknowledged > 0 {
					after = true
					return nil, nil
				}
				for i := range 1000 {
					var b storage.Batch
					b.Set([]byte(fmt.Sprintf("%04d", i)), nil)
					if i%3 > 0 { // some are pipelined
						storage.CommitAsync(env.Store, &b, func(err error) {
							if err == nil {
								acknowledged = max(acknowledged, i+1)
							}
						})
						continue
					}
					if err := env.Store.Commit(&b); err != nil {
						return nil, err
					}
					acknowledged = max(acknowledged, i+1)
				}
				w.Fail(errors.New("the task outlived its node's crash"))
				return nil, nil
			})
			_ = sim.Sleep(ctx, 5*time.Millisecond)
			n.CrashFor(time.Millisecond)
			_ = sim.Sleep(ctx, 100*time.Millisecond)
			if !after || acknowledged == 0 {
				w.Fail(fmt.Errorf("restarted %v, %d commits acknowledged", after, acknowledged))
			}
		})
	}
}

func TestAPausedNodeMissesNothing(t *testing.T) {
	sim.Run(t, 1, func(w *sim.World) {
		var got []string
		w.AddNode(1, func(ctx context.Context, env *sim.Env) (func(), error) {
			env.Transport.Handle(func(_ uint64, payload []byte) { got = append(got, string(payload)) })
			return nil, nil
		})
		var send func(string)
		w.AddNode(2, func(ctx context.Context, env *sim.Env) (func(), error) {
			send = func(s string) { _ = env.Transport.Send(1, []byte(s)) }
			return nil, nil
		})
		ctx := w.Context()
		_ = sim.Sleep(ctx, time.Millisecond)
		w.Nodes()[0].Pause()
		send("a")
		send("b")
		_ = sim.Sleep(ctx, time.Second)
		if len(got) > 0 {
			w.Fail(errors.New("a paused node received"))
		}
		w.Nodes()[0].Resume()
		if !slices.Equal(got, []string{"a", "b"}) {
			w.Fail(fmt.Errorf("got %q", got))
		}
	})
}

func TestLinksDoWhatTheyAreTold(t *testing.T) {
	sim.Run(t, 1, func(w *sim.World) {
		counts := make(map[string]int)
		var send func()
		w.AddNode(1, func(ctx context.Context, env *sim.Env) (func(), error) {
			env.Transport.Handle(func(_ uint64, payload []byte) {
				counts["all"]++
				if !bytes.Equal(payload, []byte("payload")) {
					counts["altered"]++
				}
			})
			return nil, nil
		})
		w.AddNode(2, func(ctx context.Context, env *sim.Env) (func(), error) {
			send = func() { _ = env.Transport.Send(1, []byte("payload")) }
			return nil, nil
		})
		ctx := w.Context()
		_ = sim.Sleep(ctx, time.Millisecond)
		for _, c := range []struct {
			name      string
			change    func(*sim.Link)
			low, high int // of 1000
		}{
			{"whole", func(l *sim.Link) {}, 1000, 1000},
			{"cut", func(l *sim.Link) { l.Cut = true }, 0, 0},
			{"lossy", func(l *sim.Link) { l.Loss = 0.5 }, 400, 600},
			{"repeating", func(l *sim.Link) { l.Repeat = 0.5 }, 1400, 1600},
			{"corrupting", func(l *sim.Link) { l.Corrupt = 0.5 }, 1000, 1000},
		} {
			clear(counts)
			link := w.Link(2, 1)
			before := *link
			c.change(link)
			for range 1000 {
				send()
			}
			_ = sim.Sleep(ctx, time.Second)
			*link = before
			if counts["all"] < c.low || counts["all"] > c.high {
				w.Fail(fmt.Errorf("a %s link delivered %d of 1000", c.name, counts["all"]))
			}
			if altered := counts["altered"]; (altered > 400) != (c.name == "corrupting") || altered > 600 {
				w.Fail(fmt.Errorf("a %s link altered %d of 1000", c.name, altered))
			}
		}
	})
}

func TestDeadlinesAreVirtual(t *testing.T) {
	r := sim.Run(t, 1, func(w *sim.World) {
		ctx, cancel := sim.WithTimeout(w.Context(), time.Minute)
		defer cancel()
		if err := sim.Sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) || w.Now() != time.Minute {
			w.Fail(fmt.Errorf("%v at %v", err, w.Now()))
		}
		ctx, cancel = context.WithCancel(w.Context())
		w.Go(func(own context.Context) {
			_ = sim.Sleep(own, time.Second)
			cancel()
		})
		if err := sim.Sleep(ctx, time.Hour); !errors.Is(err, context.Canceled) || w.Now() != time.Minute+time.Second {
			w.Fail(fmt.Errorf("%v at %v", err, w.Now()))
		}
	})
	require.Equal(t, time.Minute+time.Second, r.Time)
}

// recorder is a T that a run may fail.
type recorder struct{ text string }

func (r *recorder) Helper()                           {}
func (r *recorder) Fatalf(format string, args ...any) { r.text = fmt.Sprintf(format, args...) }

// A context that comes from one with a timeout ends at the same moment, however it is made, and says why.
func TestContextsThatComeFromADeadline(t *testing.T) {
	for range 50 { // a goroutine that passes the end on would be too late in some
		result := sim.Run(t, 1, func(w *sim.World) {
			outer, cancel := sim.WithTimeout(w.Context(), time.Second)
			defer cancel()
			inner, cancelInner := context.WithCancel(outer)
			defer cancelInner()
			nested, cancelNested := sim.WithTimeout(outer, time.Hour)
			defer cancelNested()
			for _, ctx := range []context.Context{inner, nested} {
				w.Go(func(context.Context) {
					require.ErrorIs(t, sim.Sleep(ctx, time.Minute), context.DeadlineExceeded)
					require.Equal(t, time.Second, w.Now())
				})
			}
			stopped, cancelStopped := context.WithCancel(outer)
			cancelStopped()
			require.ErrorIs(t, sim.Sleep(stopped, time.Second), context.Canceled)
			_ = sim.Sleep(w.Context(), time.Minute)
			late, cancelLate := context.WithCancel(outer)
			defer cancelLate()
			require.ErrorIs(t, late.Err(), context.DeadlineExceeded)
		})
		require.NoError(t, result.Err)
	}
}

func TestFailuresAreReported(t *testing.T) {
	for name, c := range map[string]struct {
		fn   func(w *sim.World)
		want string
	}{
		"check": {func(w *sim.World) {
			w.Check("sanity", func() error {
				if w.Now() > time.Second {
					return errors.New("too late")
				}
				return nil
			})
			_ = sim.Sleep(w.Context(), time.Minute)
			_ = sim.Sleep(w.Context(), time.Minute)
		}, "sanity: too late"},
		"panic": {func(w *sim.World) { panic("broken") }, "panic: broken"},
		"panic of a node": {func(w *sim.World) {
			w.AddNode(1, func(context.Context, *sim.Env) (func(), error) { panic("broken node") })
			_ = sim.Sleep(w.Context(), time.Second)
		}, "panic: broken node"},
		"nothing left": {func(w *sim.World) {
			w.AddNode(1, func(ctx context.Context, env *sim.Env) (func(), error) {
				return nil, nil
			})
			forever(w)
		}, "everything waits"},
		"too long": {func(w *sim.World) {
			for sim.Sleep(w.Context(), time.Minute) == nil {
			}
		}, "not done after"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &recorder{}
			sim.Run(r, 7, c.fn)
			require.Contains(t, r.text, c.want)
			require.Contains(t, r.text, "seed 7")
			require.False(t, strings.Contains(r.text, "%!"), r.text)
		})
	}
}

// forever waits for what never happens.
func forever(w *sim.World) {
	_ = executor.From(w.Context(), nil).Wait(w.Context(), executor.NewEvent())
}

func ExampleRun() {
	// A node that counts its starts on its disk, through a crash.
	result := sim.Execute(sim.Config{Seed: 42}, func(w *sim.World) {
		node := w.AddNode(1, func(ctx context.Context, env *sim.Env) (func(), error) {
			starts, err := env.Store.Get([]byte("starts"))
			if err != nil && !errors.Is(err, storage.ErrNotFound) {
				return nil, err
			}
			starts = append(starts, '*')
			var b storage.Batch
			b.Set([]byte("starts"), starts)
			if err := env.Store.Commit(&b); err != nil {
				return nil, err
			}
			fmt.Printf("%v: started %s\n", w.Now() > time.Second, starts)
			return nil, nil
		})
		ctx := w.Context()
		_ = sim.Sleep(ctx, time.Second)
		node.CrashFor(time.Second)
		_ = sim.Sleep(ctx, 2*time.Second)
	})
	fmt.Println(result.Time, result.Err)
	// Output:
	// false: started *
	// true: started **
	// 3s <nil>
}
