SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PROTOVALIDATE := v1.2.2

BUF := .tmp/bin/buf

.PHONY: generate
generate: $(BUF) .deps/protovalidate node_modules/.package-lock.json
	$(BUF) generate

$(BUF): tools/go.mod
	mkdir -p $(@D)
	go build -modfile=tools/go.mod -o $@ github.com/bufbuild/buf/cmd/buf

node_modules/.package-lock.json: package-lock.json gen/ts/package.json sdk/ts/package.json
	npm ci
	touch $@

.deps/protovalidate:
	mkdir -p $(@D)
	dir=$$(go mod download -json github.com/bufbuild/protovalidate@$(PROTOVALIDATE) | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
	cp -r "$$dir/proto/protovalidate" $@.tmp
	chmod -R u+w $@.tmp
	mv $@.tmp $@
.ONESHELL:
