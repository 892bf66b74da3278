# `make` lists what there is. Only Go, git, a C compiler and make are needed; what the tests need besides, they install.

GO    ?= go
BUILD := build
BIN   := $(BUILD)/limeload-l4
FUZZ_TIME ?= 30s
PARTS ?= bars growth feature
ROUNDS ?= 5
VERSION ?= $(shell $(PACKAGING)/version.sh)
ARCHES ?= amd64 arm64
PACKAGING := cmd/limeload-l4/packaging
RELEASE = $(GO) run ./$(PACKAGING)/release -version '$(VERSION)' -build $(BUILD) -out $(BUILD)/release
IMAGE ?= limeload-l4
IMAGE_ARCH ?= $(shell $(GO) env GOARCH)
IMAGE_BUILD ?= $(shell command -v buildah >/dev/null && echo buildah bud --format docker || echo docker build)

.PHONY: help run build deb rpm release image test tools race race-e2e netns vm unit e2e fuzz soak bench bench-plots bench-check bench-vm plots cover fmt lint vuln tidy check clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## build it and start the demo: a balancer over three small backends, and a client
	$(BIN) demo

build: ## build build/limeload-l4, a static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-X main.stamped=$(VERSION)' -o $(BIN) ./cmd/limeload-l4

deb: ## Debian packages in build/release, for each of ARCHES (amd64 arm64); VERSION=1.2.3 overrides git's
	$(RELEASE) -arch '$(ARCHES)' deb

rpm: ## RPM packages, likewise
	$(RELEASE) -arch '$(ARCHES)' rpm

release: ## all that a release has: tar.gz, deb, rpm, SBOM, SHA256SUMS
	rm -rf $(BUILD)/release
	$(RELEASE) -arch '$(ARCHES)' all

image: ## a container image, with buildah or docker; IMAGE and IMAGE_ARCH name it
	$(RELEASE) -arch '$(IMAGE_ARCH)' image
	$(IMAGE_BUILD) --platform linux/$(IMAGE_ARCH) --tag '$(IMAGE):$(subst +,_,$(VERSION))' $(BUILD)/image-$(IMAGE_ARCH)

test: tools lint race vm bench-check ## everything CI runs: what the tests need is installed first

tools: ## install the servers and tools that the tests talk to, or say what is missing
	$(GO) run ./test/install

# Packages that compute: for those the race detector takes ten times as long, and short runs, with a fifth of the
# properties' cases, come to the same code. All of their tests run without it.
COMPUTE := ./algo ./pool

race: ## all tests, unit and end to end, under the race detector
	$(GO) test -count=1 -timeout 5m $(COMPUTE)
	$(GO) test -race -short -count=1 -timeout 10m $(COMPUTE)
	$(GO) test -race -count=1 -timeout 15m $$($(GO) list ./... | grep -v -e '/test$$' -e '/algo$$' -e '/pool$$' -e '/test/counts$$')
	$(MAKE) --no-print-directory --jobs=2 --output-sync race-e2e netns

race-e2e: # they wait for servers most of the time, and leave room for those in namespaces
	$(GO) test -race -count=1 -timeout 20m -parallel 4 ./test

netns: ## the tests that need a network namespace of their own
	unshare --user --map-root-user --net $(GO) test -count=1 -timeout 10m -tags netns -run Netns ./test
	unshare --user --map-root-user --net $(GO) test -count=1 -timeout 5m -tags netns -run Netns ./healthcheck/probe
	unshare --user --map-root-user --net $(GO) test -count=1 -timeout 5m -tags netns -run Netns ./l4

# The tests of kernel TLS, and those of TLS for which it makes no difference, with what they need inside.
VM_TESTS := ^Test(KernelTLS.*|TLSEndsWithRoutes)$$
VM_PACK  := $(CURDIR)/$(BIN) openssl strace redis-server redis-cli
VM_SOAK_TESTS := ^Test(SoakKernelTLS.*|TLS(Versions|Certificates|Staple|Resumption|ResumptionByRules|\
	ClientCertificates|BehindHAProxy|ProxyHeaderToPrograms|ToRedis|NamesToNginx|EndsHashSNI|Replaced))$$
VM_SOAK_PACK   = $(VM_PACK) haproxy nginx $(wildcard /usr/lib/nginx/modules/ngx_stream_module.so /usr/lib/postgresql/* \
	/usr/share/postgresql) $(CURDIR)/docs/tls.md
in-vm = CGO_ENABLED=0 LIMELOAD_BIN=$(CURDIR)/$(BIN) $(GO) test -count=1 -exec '$(CURDIR)/$(BUILD)/vm $(2) $(addprefix -pack ,$(1))'

vm: build ## the tests of kernel TLS, in a virtual machine whose kernel has it
	$(GO) build -o $(BUILD)/vm ./test/vm
	$(call in-vm,$(VM_PACK)) -tags vm -timeout 10m -run '$(VM_TESTS)' ./test

unit: ## the tests beside the code only
	$(GO) test $$($(GO) list ./... | grep -v -e '/test$$' -e '/test/packaging$$' -e '/test/counts$$')

e2e: tools ## the tests of the built binary against real servers
	$(GO) test -count=1 -timeout 15m ./test ./test/packaging
	$(MAKE) --no-print-directory netns

fuzz: ## run every fuzz target for FUZZ_TIME each
	for package in $$(git grep -l '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u | sed 's,^,./,'); do \
		for target in $$($(GO) test $$package -list '^Fuzz' | grep '^Fuzz'); do \
			$(GO) test $$package -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ_TIME) -fuzzminimizetime 10x || exit 1; \
		done; \
	done

soak: tools build ## the tests that take long or state figures
	$(GO) test -count=1 -timeout 60m -tags soak -run Soak -v ./test ./test/packaging
	$(GO) build -o $(BUILD)/vm ./test/vm
	$(call in-vm,$(VM_SOAK_PACK)) -tags vm,soak -timeout 3h -run '$(subst | ,|,$(VM_SOAK_TESTS))' -v ./test

bench: tools build ## compare with HAProxy, nginx and dnsdist, into build/bench.json: an hour on a quiet machine; PARTS="bars growth feature" names parts
	failed=; for part in $(PARTS); do \
		$(GO) run ./test/bench -limeload $(BIN) -json $(BUILD)/bench.json -contenders limeload-l4,haproxy,nginx,dnsdist \
			-tls-aes128 -only $$part -rounds $(ROUNDS) || failed=1; \
	done; test -z "$$failed"

bench-plots: ## draw docs/plots/bench-*.svg, and write the tables of docs/performance.md, from build/bench.json
	$(GO) run ./test/bench plot -json $(BUILD)/bench.json

bench-check: tools ## compare system calls and allocations per request, connection and so on with committed counts
	$(GO) test -count=1 -timeout 10m -v ./test/counts

# An emulated processor with erms copies bytes by an instruction for each.
VM_COUNTS := -icount shift=0 -smp 1 -cpu max,la57=off,erms=off,fsrm=off
bench-vm: build ## count the instructions of kernel TLS and of the program's own, in the virtual machine
	$(GO) build -o $(BUILD)/vm ./test/vm
	$(call in-vm,$(VM_PACK),$(addprefix -qemu ,$(VM_COUNTS))) -tags vm -timeout 20m -run TestCostOfKernelTLS -v ./test

plots: build ## draw the plots of docs/ anew from the program's own simulation; needs gnuplot
	$(BIN) simulate --config docs/plots/ten.toml --algorithm all --change 'remove b3' --output csv >docs/plots/many.csv
	$(BIN) simulate --config docs/plots/ten.toml --algorithm all --change 'remove b3' --rate 100 --output csv >docs/plots/few.csv
	gnuplot docs/plots/algorithms.gp

cover: ## test coverage of the packages, as a page
	$(GO) test -coverprofile=$(BUILD)/cover.out $$($(GO) list ./... | grep -v '/test')
	$(GO) tool cover -html=$(BUILD)/cover.out -o $(BUILD)/cover.html

fmt: ## format all code
	gofmt -w $$(git ls-files '*.go')

lint: vuln ## formatting, vet, staticcheck, and vuln
	@test -z "$$(gofmt -l .)" || { echo "not formatted:"; gofmt -l .; exit 1; }
	$(GO) vet -tags netns,soak ./...
	$(GO) vet -tags vm,soak ./test/...
	$(GO) tool staticcheck -tags netns,soak ./...
	$(GO) tool staticcheck -tags vm,soak ./test/...

vuln: ## known vulnerabilities in what the code calls, where their database can be reached
	@found=$$($(GO) tool govulncheck ./... 2>&1) || case "$$found" in \
		*"fetching vulnerabilities"*) found="govulncheck: its database cannot be reached, so nothing was checked" ;; \
		*) echo "$$found"; exit 1 ;; \
	esac; echo "$$found"

tidy: ## bring go.mod and go.sum up to date
	$(GO) mod tidy

check: build ## check the reference configuration with the built binary
	$(BIN) check --syntax --config conf/reference.toml

clean: ## remove what was built
	rm -rf $(BUILD)
