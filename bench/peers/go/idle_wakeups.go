// idle_wakeups: context switches of an idle process with 10 000 parked goroutines in a second; as b_idle_wakeups.c. The
// observer is this program again: it reads a pid from its standard input and answers on its standard output.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

const goroutines = 10_000

func switches(pid int) float64 {
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	must(err)
	sum := 0
	for _, path := range paths {
		for _, key := range []string{"voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"} {
			n, err := strconv.Atoi(find(path, key))
			must(err)
			sum += n
		}
	}
	return float64(sum)
}

func observe() {
	var pid int
	_, err := fmt.Scan(&pid)
	must(err)
	time.Sleep(500 * time.Millisecond)
	before := switches(pid)
	time.Sleep(time.Second)
	fmt.Println(switches(pid) - before)
}

func run(b *bench) []float64 {
	observer := exec.Command(os.Args[0], "observe")
	observer.Stderr = os.Stderr
	questions, err := observer.StdinPipe()
	must(err)
	answers, err := observer.StdoutPipe()
	must(err)
	must(observer.Start())
	c := parkCrowd(goroutines)
	fmt.Fprintln(questions, os.Getpid())
	var value float64
	_, err = fmt.Fscan(answers, &value)
	must(err)
	must(observer.Wait())
	c.release()
	return []float64{value}
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "observe" {
		observe()
		return
	}
	b := &bench{question: "idle_wakeups", metrics: []metric{{"", "wake-ups/s"}}, run: run, isFresh: true}
	b.main()
}
