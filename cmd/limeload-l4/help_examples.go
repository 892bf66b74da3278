package main

// helpExamples returns the example in the help of each command whose description has none, by the command's name.
func helpExamples() map[string]string {
	return map[string]string{
		"algorithms":      "limeload-l4 algorithms",
		"check":           "limeload-l4 check lb.toml\nlimeload-l4 check --syntax --output json - <lb.toml",
		"top":             "limeload-l4 top\nlimeload-l4 top --once",
		"demo postgres":   "limeload-l4 demo postgres --phase 5s",
		"demo":            "limeload-l4 demo",
		"help":            "limeload-l4 help backends drain",
		"version":         "limeload-l4 version",
		"status":          "limeload-l4 status\nlimeload-l4 status --output json",
		"backends":        "limeload-l4 backends\nlimeload-l4 backends --pool redis",
		"backends list":   "limeload-l4 backends list --pool redis",
		"backends add":    "limeload-l4 backends add redis 10.0.0.14:6379 --name b4 --weight 2",
		"backends remove": "limeload-l4 backends remove redis b4",
		"backends set":    "limeload-l4 backends set redis b4 --weight 5\nlimeload-l4 backends set redis b4 --mode maintenance",
		"backends drain":  "limeload-l4 backends drain redis b2 --deadline 5m --remove --wait",
		"sessions":        "limeload-l4 sessions --pool redis --min-age 1h",
		"sessions list":   "limeload-l4 sessions list --client 192.0.2.0/24",
		"sessions end":    "limeload-l4 sessions end --backend b2\nlimeload-l4 sessions end 34eada0000000001",
		"clients":         "limeload-l4 clients --sort bytes --limit 5",
		"access":          "limeload-l4 access",
		"access list":     "limeload-l4 access list",
		"access allow":    "limeload-l4 access allow 192.0.2.7 --listener main",
		"access deny":     "limeload-l4 access deny 198.51.100.0/24 --for 10m --comment scan",
		"access remove":   "limeload-l4 access remove 198.51.100.0/24",
		"access check":    "limeload-l4 access check 198.51.100.7",
		"dns":             "limeload-l4 dns",
		"dns stats":       "limeload-l4 dns stats --output json",
		"dns purge":       "limeload-l4 dns purge dns example.com --below",
		"explain":         "limeload-l4 explain 192.0.2.7 --listener main",
		"reload":          "limeload-l4 reload",
		"plan":            "limeload-l4 plan --config new.toml",
		"log-level":       "limeload-l4 log-level\nlimeload-l4 log-level debug --for 5m",
		"events":          "limeload-l4 events --pool redis",
	}
}
