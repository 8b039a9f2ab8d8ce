// skynet: a tree of goroutines down to 10^6 leaves whose numbers are summed up over channels; as b_skynet.c.
package main

import "time"

const (
	children = 10
	leaves   = 1_000_000
)

func node(to chan int, first, leaves int) {
	if leaves == 1 {
		to <- first
		return
	}
	from := make(chan int)
	for i := 0; i < children; i++ {
		go node(from, first+i*(leaves/children), leaves/children)
	}
	sum := 0
	for i := 0; i < children; i++ {
		sum += <-from
	}
	to <- sum
}

func main() {
	b := &bench{question: "skynet", metrics: []metric{{"", "ns"}}}
	b.run = func(b *bench) []float64 {
		result := make(chan int)
		start := time.Now()
		go node(result, 0, leaves)
		sum := <-result
		value := float64(time.Since(start).Nanoseconds()) / leaves
		check("sum", sum, leaves*(leaves-1)/2)
		return []float64{value}
	}
	b.main()
}
