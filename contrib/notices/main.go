package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	goCommand := flag.String("go", "go", "the go `COMMAND`")
	modules := flag.Bool("modules", false, "list the modules only")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: notices [-go COMMAND] [-modules] PACKAGE")
		os.Exit(2)
	}
	out := bufio.NewWriter(os.Stdout)
	err := run(out, *goCommand, flag.Arg(0), *modules)
	if err := errors.Join(err, out.Flush()); err != nil {
		fmt.Fprintf(os.Stderr, "notices: %v\n", err)
		os.Exit(1)
	}
}

func run(w io.Writer, goCommand, pkg string, modulesOnly bool) error {
	list, err := linked(goCommand, pkg)
	if err != nil {
		return err
	}
	if modulesOnly {
		return json.NewEncoder(w).Encode(list)
	}
	return write(w, list)
}
