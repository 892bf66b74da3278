package admin

func (f *fake) Fleet() (Fleet, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := fakeTime()
	return Fleet{
		Name: "edge", Node: "lb1", Endpoints: []string{"https://10.0.0.1:2379"},
		Link: FleetLink{Connected: true, Endpoint: "https://10.0.0.1:2379", Since: &at},
		Nodes: []FleetNode{
			{Name: "lb1", This: true, Host: "lb1.internal", Version: "1.0", State: "serving", Ready: true, Since: &at,
				Started: &at, Config: "6a0df1d9c3ab", Sessions: 120, Rate: 3.5},
			{Name: "lb2", Host: "lb2.internal", Version: "1.0", State: "gone", Since: &at, Started: &at,
				Config: "6a0df1d9c3ab"},
		},
		Records: 3,
	}, f.fail
}

func (f *fake) CompareFleet() (FleetComparison, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return FleetComparison{
		Nodes: []string{"lb1", "lb2", "lb3"}, Connected: true,
		Pools: []FleetPool{{Name: "redis", Algorithm: "maglev", Eligible: 3, Nodes: 3,
			Differences: []FleetDifference{{Node: "lb3", Why: `2 of its 3 backends eligible, elsewhere 3; not eligible here alone: "b2"`}}}},
	}, f.fail
}
