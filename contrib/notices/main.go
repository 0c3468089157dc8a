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
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: notices [-go COMMAND] [-modules] PACKAGE...")
		os.Exit(2)
	}
	out := bufio.NewWriter(os.Stdout)
	err := run(out, *goCommand, *modules, flag.Args()...)
	if err := errors.Join(err, out.Flush()); err != nil {
		fmt.Fprintf(os.Stderr, "notices: %v\n", err)
		os.Exit(1)
	}
}

func run(w io.Writer, goCommand string, modulesOnly bool, programs ...string) error {
	list, err := linked(goCommand, programs...)
	if err != nil {
		return err
	}
	if modulesOnly {
		return json.NewEncoder(w).Encode(list)
	}
	return write(w, list)
}
