// The frame of the Go programs: the same arguments, statistics and JSON lines as bench/bench.h; GOMAXPROCS = workers.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"sort"
	"strconv"
	"strings"
)

type metric struct{ name, unit string } // the main figure has no name; lower is better in all of them

type bench struct {
	question string
	metrics  []metric
	run      func(b *bench) []float64 // measures once: one figure per metric; NaN: not with so many workers
	isFresh  bool                     // a process of its own for each run, and no warm-up run
	workers  int
	runs     int
	quick    bool
	times    []float64 // us; those that the main figure is made of, of all runs: for its histogram
}

func (b *bench) count(full int) int {
	if b.quick {
		return full / 5
	}
	return full
}

func die(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

func must(err error) {
	if err != nil {
		die("%v", err)
	}
}

// check ends the program when what it computed is wrong.
func check(what string, got, want int) {
	if got != want {
		die("%s: %d, not %d", what, got, want)
	}
}

var (
	flagWorkers = flag.Int("workers", 0, "GOMAXPROCS; 0: 1 and then 2")
	flagRuns    = flag.Int("runs", 5, "measured runs")
	flagQuick   = flag.Bool("quick", false, "a fifth of the repetitions")
	flagAs      = flag.String("as", "", "answer the question of this name, which has the main figure only")
	flagChild   = flag.Bool("child", false, "one run, its figures alone")
)

func (b *bench) main() {
	flag.Parse()
	b.workers, b.runs, b.quick = *flagWorkers, *flagRuns, *flagQuick
	if *flagAs != "" {
		b.question, b.metrics = *flagAs, b.metrics[:1]
	}
	if *flagChild {
		runtime.GOMAXPROCS(b.workers)
		for _, value := range b.run(b) {
			fmt.Println(value)
		}
		return
	}
	counts := []int{1, 2}
	if b.workers > 0 {
		counts = []int{b.workers}
	}
	for _, b.workers = range counts {
		b.report(b.measure())
	}
}

func (b *bench) measure() [][]float64 {
	var samples [][]float64
	runtime.GOMAXPROCS(b.workers)
	if !b.isFresh {
		b.run(b) // warm-up
		b.times = nil
	}
	for i := 0; i < b.runs; i++ {
		if b.isFresh {
			samples = append(samples, b.runChild())
		} else {
			samples = append(samples, b.run(b))
		}
	}
	return samples
}

func (b *bench) runChild() []float64 {
	args := []string{"--child", "--workers", strconv.Itoa(b.workers), "--quick=" + strconv.FormatBool(b.quick)}
	command := exec.Command(os.Args[0], args...)
	command.Stderr = os.Stderr
	out, err := command.Output()
	must(err)
	var values []float64
	for _, word := range strings.Fields(string(out)) {
		value, err := strconv.ParseFloat(word, 64)
		must(err)
		values = append(values, value)
	}
	return values
}

type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
}

type jsonLine struct {
	Question string  `json:"question"`
	Metric   string  `json:"metric,omitempty"`
	Impl     string  `json:"impl"`
	Workers  int     `json:"workers"`
	Value    float64 `json:"value"`
	Unit     string  `json:"unit"`
	Better   string  `json:"better"`
	Runs     int     `json:"runs"`
	Min      float64 `json:"min"`
	Median   float64 `json:"median"`
	Max      float64 `json:"max"`
	Quick    bool    `json:"quick,omitempty"`

	Histogram [][2]float64 `json:"histogram,omitempty"`
	Machine   machine      `json:"machine"`
}

func (b *bench) report(samples [][]float64) {
	for i, m := range b.metrics {
		var sorted []float64
		for _, values := range samples {
			sorted = append(sorted, values[i])
		}
		sort.Float64s(sorted)
		if math.IsNaN(sorted[0]) {
			continue
		}
		n := len(sorted)
		median := (sorted[(n-1)/2] + sorted[n/2]) / 2
		line := jsonLine{b.question, m.name, "go", b.workers, median, m.unit, "lower", n, sorted[0], median,
			sorted[n-1], b.quick, b.histogram(m.name), machine{find("/proc/cpuinfo", "model name"), runtime.NumCPU(), kernel()}}
		must(json.NewEncoder(os.Stdout).Encode(line))
	}
}

// percentile of values that are in order.
func percentile(sorted []float64, percent float64) float64 {
	rank := int(math.Ceil(percent / 100 * float64(len(sorted))))
	if rank < 1 {
		rank = 1
	}
	return sorted[rank-1]
}

// histogram goes up to the last percentile that so few values can tell from their maximum.
func (b *bench) histogram(metric string) (points [][2]float64) {
	if metric != "" {
		return nil
	}
	sort.Float64s(b.times)
	for _, percent := range []float64{50, 75, 90, 99, 99.9, 99.99} {
		if (100-percent)/100*float64(len(b.times)) >= 1 {
			points = append(points, [2]float64{percent, percentile(b.times, percent)})
		}
	}
	return points
}

func kernel() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	must(err)
	return strings.TrimSpace(string(release))
}

// find returns the value of the first line "<key>...: <value>" of a file, or the architecture's name.
func find(path, key string) string {
	file, err := os.Open(path)
	must(err)
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.HasPrefix(name, key) {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func kilobytes(path, key string) float64 {
	value, err := strconv.ParseFloat(strings.Fields(find(path, key))[0], 64)
	must(err)
	return value * 1024
}

func rssBytes() float64       { return kilobytes("/proc/self/smaps_rollup", "Rss") }
func pageTableBytes() float64 { return kilobytes("/proc/self/status", "VmPTE") }
