// channels.go: make, send, receive, range, close, comma-ok, len and cap; a channel in a message.
package main

import "fmt"

func count(out chan<- int) {
	for i := 1; i <= 3; i++ {
		out <- i
	}
	close(out)
}

// A question, with the channel for its answer.
type question struct {
	a, b   int
	answer chan int
}

func add(questions <-chan question) {
	for q := range questions {
		q.answer <- q.a + q.b
	}
}

func main() {
	numbers := make(chan int)
	go count(numbers)
	for v := range numbers {
		fmt.Println("got", v)
	}
	_, ok := <-numbers
	fmt.Println("ok:", ok)

	words := make(chan string, 3)
	words <- "warp"
	words <- "weft"
	fmt.Println(len(words), "of", cap(words))
	close(words)
	for word := range words {
		fmt.Println(word)
	}

	questions := make(chan question)
	q := question{20, 22, make(chan int, 1)}
	go add(questions)
	questions <- q
	fmt.Println(q.a, "+", q.b, "=", <-q.answer)
	close(questions)
}
