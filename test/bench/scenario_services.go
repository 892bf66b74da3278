package main

import (
	"fmt"
	"time"
)

// The reload that is measured is that of a balancer with many backends and sessions.
const (
	reloadBackends = manyBackends
	reloadSessions = 5000
	reloadRate     = 2000 // requests a second meanwhile
)

// serviceScenarios are about real servers, a client that is refused, and a reload.
func serviceScenarios() []scenario {
	redis := func(name, test string, pipeline int, use string) scenario {
		return scenario{
			name: name, traffic: trafficRedis, unit: "command", use: use,
			job: job{Pattern: patternRedis, Connections: 50, Redis: &redisJob{Test: test, Pipeline: pipeline}},
		}
	}
	return []scenario{
		redis("redis-get", "get", 1, "redis-benchmark -t get -c 50"),
		redis("redis-set", "set", 1, "redis-benchmark -t set -c 50"),
		redis("redis-get-p16", "get", 16, "redis-benchmark -t get -c 50 -P 16: 16 commands in one write"),
		redis("redis-set-p16", "set", 16, "redis-benchmark -t set -c 50 -P 16"),
		{
			name: "refused", traffic: trafficTCP, unit: unitRefusal,
			use:    "connects (-refused-rate) of one client that has as many sessions as it may have, and is refused",
			limits: limitation{ClientSessions: 4, Over: "reset"},
			job: job{Pattern: patternKnock, Flood: &floodJob{
				Source: floodAddress, Senders: 1, Slots: 512, Patience: time.Hour, // it keeps the sessions that it gets
			}},
		},
		{
			name: "reload", traffic: trafficTCP, unit: "request", backends: reloadBackends, reload: true,
			use: fmt.Sprintf("%d requests/s on 64 connections, open loop, in a reload with %d backends, %d sessions",
				reloadRate, reloadBackends, reloadSessions),
			job: job{
				Pattern: patternPaced, Connections: 64, Rate: reloadRate, Resting: reloadSessions, Answer: answerBytes,
			},
		},
	}
}
