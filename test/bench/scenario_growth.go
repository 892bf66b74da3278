package main

import "fmt"

// A curve says how the cost of one kind of work grows with something: each of its points is a scenario.
type curve struct {
	name   string // of its plot
	title  string
	axis   string // what grows
	unit   string // what the cost is of
	points []curvePoint
}

// A curvePoint is one point of a curve: the cost of a scenario's unit is that of parts of the curve's.
type curvePoint struct {
	x        float64
	scenario scenario
	parts    float64
}

// cliff is the largest factor by which the cost may grow from one point of a curve to the next. Points are a factor of
// ten apart (sessions, backends), of two (loops) or of four (sizes, where the cost is that of a byte). A cache that no
// longer holds the sessions may cost a part of a request; what costs half of one more is a cliff.
const cliff = 1.5

// curves are drawn from what `-only growth` measures.
func curves() []curve {
	balancers := []string{"limeload-l4", nameBefore, "haproxy", "nginx"}
	point := func(name string, n int, s scenario) curvePoint {
		s.name = fmt.Sprintf("growth-%s-%d", name, n)
		s.traffic, s.who, s.named, s.table = trafficTCP, balancers, true, tableGrowth
		return curvePoint{x: float64(n), scenario: s, parts: 1}
	}
	sessions := curve{name: "sessions", title: "A request, by open sessions", axis: "sessions", unit: "request"}
	for _, n := range []int{1, 10, 100, 1000, 9000} {
		sessions.points = append(sessions.points, point("sessions", n, scenario{
			unit: "request", use: fmt.Sprintf("request64's work on %d kept connections", n),
			job: job{Pattern: patternKept, Connections: n, Depth: 1, Answer: answerBytes},
		}))
	}
	backends := curve{
		name: "backends", title: "A session with one request, by backends", axis: "backends", unit: "connection",
	}
	for _, n := range []int{1, 10, 100, manyBackends} {
		backends.points = append(backends.points, point("backends", n, scenario{
			unit: "connection", use: fmt.Sprintf("connect's work with %d backends", n), backends: n,
			job: job{Pattern: patternConnect, Connections: 32, Answer: answerBytes},
		}))
	}
	loops := curve{
		name: "loops", title: "A request, by loops, threads or worker processes", axis: "loops", unit: "request",
	}
	for _, n := range []int{1, 2, 4, 8} {
		loops.points = append(loops.points, point("loops", n, scenario{
			unit: "request", workers: n,
			use: fmt.Sprintf("request64's work with %d loops, threads or worker processes", n),
			job: job{Pattern: patternKept, Connections: 64, Depth: 1, Answer: answerBytes},
		}))
	}
	sizes := curve{
		name: "sizes", title: "A byte of a request, by the request's size", axis: "bytes each way", unit: "byte",
	}
	for n := 1; n <= 1<<20; n *= 4 {
		p := point("size", n, scenario{
			unit: "request", use: fmt.Sprintf("%d bytes out, %d back, closed loop on 16 kept connections", n, n),
			job: job{
				Pattern: patternKept, Connections: 16, Depth: 1, Payload: int64(n), Answer: int64(n), Raw: true,
			},
		})
		p.parts = float64(n)
		sizes.points = append(sizes.points, p)
	}
	return []curve{sessions, backends, loops, sizes}
}

func growthScenarios() []scenario {
	var all []scenario
	for _, c := range curves() {
		for _, p := range c.points {
			all = append(all, p.scenario)
		}
	}
	return all
}
