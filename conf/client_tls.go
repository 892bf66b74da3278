package conf

// clientTLS are the keys of TLS that a check and a discovery have alike.
type clientTLS struct {
	verify                    bool
	serverName, ca, cert, key string
}

// unused reports each key that is set, in a table at path whose owner does not speak TLS. needs is what would make it.
func (k clientTLS) unused(r *report, path, owner, needs string) {
	without := func(key, found string) {
		r.add(join(path, key), Error{Found: found, Message: owner + " does not speak TLS", Allowed: needs})
	}
	if !k.verify {
		without("verify", "false")
	}
	for _, text := range [][2]string{{"server_name", k.serverName}, {"ca", k.ca}, {"cert", k.cert}, {"key", k.key}} {
		if text[1] != "" {
			without(text[0], quote(text[1]))
		}
	}
}

// validate reports a name that is none, and a certificate without its key or a key without its certificate.
func (k clientTLS) validate(r *report, path string) {
	if k.serverName != "" && !validHost(k.serverName) && !isIP(k.serverName) {
		r.add(join(path, "server_name"),
			Error{Found: quote(k.serverName), Message: "this is neither an IP address nor a host name"})
	}
	switch {
	case k.cert != "" && k.key == "" && !r.seen[join(path, "key")]:
		r.add(join(path, "cert"), Error{Found: quote(k.cert), Message: "its key is missing",
			Allowed: "needs both cert and key, or none"})
	case k.key != "" && k.cert == "" && !r.seen[join(path, "cert")]:
		r.add(join(path, "key"), Error{Found: quote(k.key), Message: "its cert is missing",
			Allowed: "needs both cert and key, or none"})
	}
}
