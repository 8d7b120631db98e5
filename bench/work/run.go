package work

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Job says what to measure.
type Job struct {
	System  string        `json:"system"`
	Work    string        `json:"work"` // "write" or "read" (linearizable)
	Clients int           `json:"clients"`
	Size    int           `json:"size"`   // bytes of a command, at least 8
	Groups  int           `json:"groups"` // over which the clients are spread; only 1 so far
	Warmup  time.Duration `json:"-"`      // not counted
	Time    time.Duration `json:"-"`      // counted
	Dir     string        `json:"-"`      // for the system's data
}

// Result is what was measured.
type Result struct {
	Job
	Version   string  `json:"version"` // of the system
	Settings  string  `json:"settings"`
	Ops       uint64  `json:"ops"`
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"per_second"`
	P50Micros float64 `json:"p50_us"`
	P99Micros float64 `json:"p99_us"`
	CPUMicros float64 `json:"cpu_us_per_op"` // user and system, of the whole process: three replicas and all clients
	Bytes     float64 `json:"bytes_per_op"`  // allocated
	Allocs    float64 `json:"allocs_per_op"`
	Errors    uint64  `json:"errors"`

	// What everything else on the machine, the kernel's own work included, kept busy
	// meanwhile: above a few tenths, this result tells little. Zero where the system
	// does not tell.
	OtherCores float64 `json:"other_cores"`
}

// System is a running cluster of three replicas in this process.
type System interface {
	// Write returns once the command is committed and applied.
	Write(ctx context.Context, command []byte) error
	// Read is a linearizable read of one key: it returns the length of its value.
	Read(ctx context.Context, key uint64) (length int, err error)
	Close()
}

// Main runs one job, which the command line describes, and prints its result. The
// modules are those whose versions the result names.
func Main(modules []string, settings func(system string) string, open func(ctx context.Context, job Job) (System, error)) {
	var job Job
	flag.StringVar(&job.System, "system", "", "variant of the system")
	flag.StringVar(&job.Work, "work", "write", "write or read")
	flag.IntVar(&job.Clients, "clients", 64, "clients in a closed loop")
	flag.IntVar(&job.Size, "size", 128, "bytes of a command")
	flag.IntVar(&job.Groups, "groups", 1, "groups over which the clients are spread: only 1 so far")
	warmup := flag.Float64("warmup", 1, "seconds before measuring")
	seconds := flag.Float64("seconds", 5, "seconds to measure")
	flag.StringVar(&job.Dir, "dir", "", "directory for data")
	flag.Parse()
	job.Warmup = time.Duration(*warmup * float64(time.Second))
	job.Time = time.Duration(*seconds * float64(time.Second))
	if job.Dir == "" || job.Size < 8 || job.Clients < 1 || job.Groups != 1 || job.Warmup < 0 || job.Time <= 0 || job.Work != "write" && job.Work != "read" {
		fmt.Fprintln(os.Stderr, "bad flags: -dir is required, -size at least 8, -clients at least 1, -groups 1, -seconds above 0, -work write or read")
		os.Exit(2)
	}
	result, err := run(job, open)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	result.Version, result.Settings = Versions(modules), settings(job.System)
	_ = json.NewEncoder(os.Stdout).Encode(result)
	os.Exit(0) // what a peer takes to shut down is not our business
}

// Versions names modules with the versions that this program was built with. A
// module that a directory replaces has none, and is this tree.
func Versions(modules []string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	var found []string
	for _, m := range info.Deps {
		if !slices.Contains(modules, m.Path) {
			continue
		}
		version := m.Version
		if m.Replace != nil {
			version = "(this tree)"
		}
		found = append(found, m.Path+" "+version)
	}
	return strings.Join(found, ", ")
}

func run(job Job, open func(context.Context, Job) (System, error)) (Result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), job.Warmup+job.Time+2*time.Minute)
	defer cancel()
	system, err := open(ctx, job)
	if err != nil {
		return Result{}, fmt.Errorf("open %s: %w", job.System, err)
	}
	defer system.Close()
	return Measure(ctx, job, system)
}

// fill writes every key once, so that each read finds a value.
func fill(ctx context.Context, job Job, system System) error {
	var next atomic.Uint64
	var failed atomic.Pointer[error]
	var writers sync.WaitGroup
	for range 64 {
		writers.Go(func() {
			command := make([]byte, job.Size)
			for failed.Load() == nil {
				key := next.Add(1) - 1
				if key >= Keys {
					return
				}
				Command(command, key)
				if err := system.Write(ctx, command); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	writers.Wait()
	if err := failed.Load(); err != nil {
		return fmt.Errorf("write what is to be read: %w", *err)
	}
	return nil
}

// Measure drives a system with a job's clients.
func Measure(ctx context.Context, job Job, system System) (Result, error) {
	if job.Work == "read" {
		if err := fill(ctx, job, system); err != nil {
			return Result{}, fmt.Errorf("%s: %w", job.System, err)
		}
	}
	return Drive(ctx, job, func(c int) func() error {
		random := rand.New(rand.NewPCG(uint64(c), 1))
		command := make([]byte, job.Size)
		return func() error {
			if job.Work != "read" {
				Command(command, random.Uint64())
				return system.Write(ctx, command)
			}
			length, err := system.Read(ctx, random.Uint64()%Keys)
			if err == nil && length != job.Size-8 {
				err = fmt.Errorf("read a value of %d bytes instead of %d", length, job.Size-8)
			}
			return err
		}
	})
}

// Drive has a job's clients do something in closed loops, and measures it: client returns what the one with that number does each
// time. An operation counts if it ends within the measured time: what is under way when that begins makes up for what is
// under way when it ends.
func Drive(ctx context.Context, job Job, client func(c int) func() error) (Result, error) {
	const (
		warming = iota
		measuring
		over
	)
	var phase atomic.Int32
	var failures atomic.Uint64
	var lastError atomic.Pointer[error]
	histograms := make([]Histogram, job.Clients)
	var clients sync.WaitGroup
	for c := range job.Clients {
		clients.Go(func() {
			operation := client(c)
			for phase.Load() != over {
				start := time.Now()
				err := operation()
				took := time.Since(start)
				if err != nil {
					failures.Add(1)
					lastError.Store(&err)
					if ctx.Err() != nil {
						return
					}
					time.Sleep(time.Millisecond)
					continue
				}
				if phase.Load() == measuring {
					histograms[c].Add(took)
				}
			}
		})
	}
	time.Sleep(job.Warmup)
	runtime.GC() // the garbage of starting up is not the work's
	failures.Store(0)
	memory, cpu, busy := readMemory(), readCPU(), readBusy()
	began := time.Now()
	phase.Store(measuring)
	time.Sleep(job.Time)
	phase.Store(over)
	seconds := time.Since(began).Seconds()
	memoryAfter, cpuAfter, busyAfter := readMemory(), readCPU(), readBusy()
	clients.Wait()
	var all Histogram
	for i := range histograms {
		all.Merge(&histograms[i])
	}
	if all.Count() == 0 {
		err := errors.New("nothing was done")
		if p := lastError.Load(); p != nil {
			err = *p
		}
		return Result{}, fmt.Errorf("%s: no operation succeeded: %w", job.System, err)
	}
	ops := float64(all.Count())
	return Result{
		Job:       job,
		Ops:       all.Count(),
		Seconds:   seconds,
		PerSecond: ops / seconds,
		P50Micros: float64(all.Quantile(0.50)) / 1e3,
		P99Micros: float64(all.Quantile(0.99)) / 1e3,
		CPUMicros: float64((cpuAfter - cpu).Microseconds()) / ops,
		Bytes:     float64(memoryAfter.TotalAlloc-memory.TotalAlloc) / ops,
		Allocs:    float64(memoryAfter.Mallocs-memory.Mallocs) / ops,
		Errors:    failures.Load(),

		OtherCores: max(0, (busyAfter-busy-(cpuAfter-cpu)).Seconds()/seconds),
	}, nil
}

// OnDisk refuses a directory, which it makes, if it is in memory: a sync would cost nothing there.
func OnDisk(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return fmt.Errorf("statfs %s: %w", dir, err)
	}
	const tmpfs, ramfs = 0x01021994, 0x858458f6
	if s.Type == tmpfs || s.Type == ramfs {
		return fmt.Errorf("%s is in memory, where a sync costs nothing: give a directory on a real disk with -dir", dir)
	}
	return nil
}

func readMemory() (m runtime.MemStats) {
	runtime.ReadMemStats(&m)
	return m
}

func readCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // never fails with these arguments
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// readBusy returns the CPU time of the whole machine so far, or 0 where /proc/stat
// does not tell.
func readBusy() time.Duration {
	content, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	return parseBusy(string(content))
}

// parseBusy sums the first line's fields but those of idling: user, nice, system,
// idle, iowait, irq, softirq and steal, in hundredths of a second. Guests, which
// follow, are part of user.
func parseBusy(stat string) time.Duration {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0
	}
	var sum time.Duration
	for i, f := range fields[1:9] {
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0
		}
		if i != 3 && i != 4 {
			sum += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return sum
}

// Histogram counts durations in buckets whose width is at most 1/32 of their value.
type Histogram struct {
	buckets [64 * 32]uint64
	count   uint64
}

func bucket(v uint64) int {
	if v < 32 {
		return int(v)
	}
	shift := bits.Len64(v) - 6
	return 32*(shift+1) + int(v>>shift) - 32
}

// low returns the least value of a bucket.
func low(b int) uint64 {
	if b < 32 {
		return uint64(b)
	}
	shift := b/32 - 1
	return uint64(b%32+32) << shift
}

// Add counts one duration.
func (h *Histogram) Add(d time.Duration) {
	h.buckets[bucket(uint64(max(d, 0)))]++
	h.count++
}

// Merge adds another histogram's counts.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.count += o.count
}

// Count returns how many durations were counted.
func (h *Histogram) Count() uint64 { return h.count }

// Quantile returns the middle of the bucket in which the q-th part of the counted
// durations ends, 0 < q <= 1.
func (h *Histogram) Quantile(q float64) time.Duration {
	want := max(1, uint64(q*float64(h.count)+0.5))
	for b, n := range h.buckets {
		if n >= want {
			return time.Duration((low(b) + low(b+1)) / 2)
		}
		want -= n
	}
	return 0
}
