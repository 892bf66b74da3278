package algo_test

import (
	"fmt"

	"github.com/limeload/limeload-l4/algo"
)

func ExampleBuild() {
	members := []algo.Member{
		{ID: "large", Weight: 3, Load: new(algo.Load)},
		{ID: "small", Weight: 1, Load: new(algo.Load)},
	}
	picker, err := algo.Build("round_robin", members, algo.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 4 {
		fmt.Println(members[picker.Pick(0)].ID)
	}
	// Output:
	// large
	// large
	// small
	// large
}

func ExampleBuild_unknown() {
	_, err := algo.Build("fastest", nil, algo.Options{})
	fmt.Println(err)
	// Output:
	// unknown algorithm "fastest" (known: round_robin, random, least_conn, p2c, least_time, first, client_hash, ring_hash, maglev)
}

func ExampleKinds() {
	for _, k := range algo.Kinds()[:3] {
		fmt.Println(k.Name)
	}
	// Output:
	// round_robin
	// random
	// least_conn
}

func ExampleOptions_balance() {
	var total algo.Total
	members := make([]algo.Member, 4)
	for i := range members {
		members[i] = algo.Member{ID: fmt.Sprint("b", i), Weight: 1, Load: new(algo.Load)}
		total.Join(members[i].Load)
	}
	picker, err := algo.Build("ring_hash", members, algo.Options{Balance: 1.25, Total: &total})
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 100 { // one client, but no member gets more than 1.25 x 25, rounded up
		members[picker.Pick(42)].Load.TryAcquire()
	}
	for _, m := range members {
		fmt.Println(m.Load.Leases() <= 32)
	}
	// Output:
	// true
	// true
	// true
	// true
}
