package storagetest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/storage"
)

// testConcurrent has each goroutine work on keys of its own, and know their
// state exactly.
func testConcurrent(e *env) {
	s := e.open()
	const workers, rounds = 8, 40
	var wg sync.WaitGroup
	errs := make(chan error, workers)
	final := make([]map[string]string, workers)
	for w := range workers {
		wg.Go(func() {
			errs <- func() error {
				random := rand.New(rand.NewPCG(uint64(w), 7))
				model := map[string]string{}
				prefix := fmt.Sprintf("w%d/", w)
				for i := range rounds {
					b := new(storage.Batch)
					for range random.IntN(4) + 1 {
						k := fmt.Sprintf("%s%02d", prefix, random.IntN(20))
						if random.IntN(4) == 0 {
							b.Delete([]byte(k))
							delete(model, k)
						} else {
							b.Set([]byte(k), fmt.Append(nil, i))
							model[k] = fmt.Sprint(i)
						}
					}
					if i%2 == 0 {
						if err := s.Commit(b); err != nil {
							return err
						}
					} else {
						done := make(chan error, 1)
						storage.CommitAsync(s, b, func(err error) { done <- err })
						if err := <-done; err != nil {
							return err
						}
					}
					for k, want := range model {
						if got, err := s.Get([]byte(k)); err != nil || string(got) != want {
							return fmt.Errorf("key %s: %q, error %v, want %q", k, got, err, want)
						}
					}
					it, err := s.Scan([]byte(prefix), []byte(prefix+"\xff"))
					if err != nil {
						return err
					}
					keys, _, err := storage.Collect(it)
					if err != nil || len(keys) != len(model) {
						return fmt.Errorf("%d keys, error %v, want %d", len(keys), err, len(model))
					}
				}
				final[w] = model
				return nil
			}()
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(e, err)
	}
	s = e.reopen(s)
	n := 0
	for _, model := range final {
		n += len(model)
		for k, v := range model {
			e.has(s, k, v)
		}
	}
	require.Len(e, strings.Fields(e.dump(s, "", "")), n)
}

// testCloseRace closes the store under its users. Each call must either work or
// return ErrClosed.
func testCloseRace(e *env) {
	s := e.open()
	e.commit(s, "a=1")
	const workers = 6
	var wg sync.WaitGroup
	var started sync.WaitGroup
	started.Add(workers)
	errs := make(chan error, workers)
	acknowledged := make([]int, workers)
	for w := range workers {
		wg.Go(func() {
			var once sync.Once
			for i := 0; ; i++ {
				err := func() error {
					if _, err := s.Get([]byte("a")); err != nil {
						return err
					}
					it, err := s.Scan(nil, nil)
					if err != nil {
						return err
					}
					defer it.Close()
					for {
						if _, _, err := it.Next(); errors.Is(err, io.EOF) {
							break
						} else if err != nil {
							return err
						}
					}
					b := batch(fmt.Sprintf("n%d=%d", w, i))
					if i%2 == 0 {
						return s.Commit(b)
					}
					done := make(chan error, 1)
					storage.CommitAsync(s, b, func(err error) { done <- err })
					return <-done
				}()
				if err != nil {
					once.Do(started.Done)
					errs <- err
					return
				}
				acknowledged[w] = i
				if i == 3 {
					once.Do(started.Done)
				}
			}
		})
	}
	started.Wait()
	require.NoError(e, s.Close())
	wg.Wait()
	close(errs)
	for err := range errs {
		require.ErrorIs(e, err, storage.ErrClosed)
	}
	s = e.open()
	for w, n := range acknowledged {
		v, err := s.Get(fmt.Appendf(nil, "n%d", w))
		require.NoError(e, err)
		var got int
		_, err = fmt.Sscan(string(v), &got)
		require.NoError(e, err)
		require.GreaterOrEqual(e, got, n, "an acknowledged commit is lost")
	}
}

func testAsyncOrder(e *env) {
	s := e.open()
	a := e.async(s)
	const workers, n = 3, 300
	type call struct {
		number int
		err    error
	}
	var mu sync.Mutex
	calls := make([][]call, workers)
	var wg sync.WaitGroup
	var dones sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range n {
				b := new(storage.Batch)
				switch {
				case i%10 == 9: // an empty batch keeps its place, too
				case i%50 == 20: // so does a large one
					b.Set(fmt.Appendf(nil, "w%d/%03d", w, i), make([]byte, 100<<10))
				default:
					b.Set(fmt.Appendf(nil, "w%d/%03d", w, i), []byte("v"))
				}
				dones.Add(1)
				var first sync.Once
				a.CommitAsync(b, func(err error) {
					mu.Lock()
					defer mu.Unlock()
					calls[w] = append(calls[w], call{i, err})
					first.Do(dones.Done)
				})
			}
		})
	}
	wg.Wait()
	dones.Wait()
	require.NoError(e, s.Close())
	mu.Lock()
	defer mu.Unlock()
	for w := range workers {
		require.Len(e, calls[w], n, "a done was called twice")
		for i, c := range calls[w] {
			require.Equal(e, i, c.number)
			require.NoError(e, c.err)
		}
	}
}
