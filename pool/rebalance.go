package pool

import "time"

// Rebalance has the settings of rebalancing: sessions of a backend that has more than its share are asked to leave it.
// Its zero value is off.
type Rebalance struct {
	MaxSkew float64       // sessions of one backend, as a multiple of its share by weight, above 1; 0 is off
	Rate    float64       // how much of the pool's sessions may be asked to leave in a second, above 0 to 1
	MinAge  time.Duration // younger sessions stay
}
