// generator.go: iter.Pull: values one at a time from code that runs as if it had nothing else to do.
package main

import "fmt"

// What iter.Pull does, which Go has from 1.23 on: next gives the next value, stop ends the sequence.
func pull(sequence func(yield func(int) bool)) (next func() (int, bool), stop func()) {
	resume, values := make(chan bool), make(chan int)
	go func() {
		defer close(values)
		if !<-resume {
			return
		}
		sequence(func(v int) bool {
			values <- v
			return <-resume
		})
	}()
	isDone := false
	next = func() (int, bool) {
		if isDone {
			return 0, false
		}
		resume <- true
		v, ok := <-values
		isDone = !ok
		return v, ok
	}
	stop = func() {
		if !isDone {
			isDone = true
			resume <- false
			<-values
		}
	}
	return next, stop
}

func fibonacci(yield func(int) bool) {
	for a, b := 0, 1; yield(a); a, b = b, a+b {
	}
	fmt.Println("fibonacci is told to stop")
}

type tree struct {
	value       int
	left, right *tree
}

// Yields from any depth of the recursion. Returns false when the walk is to stop.
func (t *tree) walk(yield func(int) bool) bool {
	return t == nil || (t.left.walk(yield) && yield(t.value) && t.right.walk(yield))
}

// Whether two trees hold the same values in the same order, whatever their shapes.
func same(a, b *tree) bool {
	next, stop := pull(func(yield func(int) bool) { a.walk(yield) })
	defer stop()
	otherNext, otherStop := pull(func(yield func(int) bool) { b.walk(yield) })
	defer otherStop()
	for {
		x, ok := next()
		y, otherOk := otherNext()
		if !ok || !otherOk || x != y {
			return !ok && !otherOk
		}
	}
}

func main() {
	t1, t3, t4 := &tree{value: 1}, &tree{value: 3}, &tree{value: 4}
	wide, deep, odd := &tree{2, t1, t3}, &tree{3, &tree{2, t1, nil}, nil}, &tree{2, t1, t4}
	next, stop := pull(fibonacci)
	for i := 0; i < 10; i++ {
		v, _ := next()
		fmt.Println(v)
	}
	stop()
	fmt.Println("the same:", same(wide, deep))
	fmt.Println("the same:", same(wide, odd))
}
