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
	// unknown algorithm "fastest" (known: round_robin, least_conn)
}

func ExampleKinds() {
	for _, k := range algo.Kinds() {
		fmt.Println(k.Name)
	}
	// Output:
	// round_robin
	// least_conn
}
