/* options.h: the command lines of those examples that have options: --name N, --name TEXT, --name, and --help.
 *
 * A name of one letter is an option with one dash, as -j 4. Whoever asks for what does not exist is told so, and the
 * program ends with 2. */
#ifndef COIR_EXAMPLES_OPTIONS_H
#define COIR_EXAMPLES_OPTIONS_H

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct opt {
  const char *name, *help;
  int *number, min, max; /* one of these three is where the value goes */
  const char **text;
  bool *flag;
};
#define OPT_NUMBER(name, variable, min, max, help) \
  { name, help, &(variable), min, max, NULL, NULL }
#define OPT_TEXT(name, variable, help) \
  { name, help, NULL, 0, 0, &(variable), NULL }
#define OPT_FLAG(name, variable, help) \
  { name, help, NULL, 0, 0, NULL, &(variable) }
#define OPTS_MAX 16

static void opt_help(const char *usage, const struct opt *opts, size_t n) {
  printf("%s\n", usage);
  for (size_t i = 0; i < n; i++) {
    const struct opt *o = &opts[i];
    const char *value = o->number ? "N" : o->text ? "TEXT" : "";
    printf("  %s%s %-*s %s", o->name[1] ? "--" : "-", o->name, 15 - (int)strlen(o->name) - (o->name[1] ? 1 : 0), value,
           o->help);
    if (o->number) printf(" (%d)", *o->number);
    if (o->text && *o->text) printf(" (%s)", *o->text);
    printf("\n");
  }
  printf("  --help           this list\n");
}

static void opt_set(const char *program, const struct opt *o, const char *value) {
  char *end;
  if (o->flag) *o->flag = true;
  if (o->text) *o->text = value;
  if (!o->number) return;
  long number = strtol(value, &end, 10);
  if (end == value || *end != '\0' || number < o->min || number > o->max) {
    fprintf(stderr, "%s: %s takes a number from %d to %d, not '%s'\n", program, o->name, o->min, o->max, value);
    exit(2);
  }
  *o->number = (int)number;
}

/* Reads the command line. `usage` is what --help says before the list. Returns where in argv the rest begins, which may
 * hold up to `rest_max` arguments. */
static int opt_read(int argc, char **argv, const char *usage, const struct opt *opts, size_t n, int rest_max) {
  struct option longs[OPTS_MAX + 2] = {{"help", no_argument, NULL, 'h'}};
  char shorts[2 * OPTS_MAX + 1] = "";
  int count = 1;
  for (size_t i = 0; i < n && i < OPTS_MAX; i++) {
    if (opts[i].name[1]) longs[count++] = (struct option){opts[i].name, !opts[i].flag, NULL, 256 + (int)i};
    else strcat(strncat(shorts, opts[i].name, 1), opts[i].flag ? "" : ":");
  }
  for (int c; (c = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
    if (c == '?') exit(2); /* getopt_long has said why */
    if (c == 'h') {
      opt_help(usage, opts, n);
      exit(0);
    }
    for (size_t i = 0; i < n; i++) {
      if (c == 256 + (int)i || (!opts[i].name[1] && c == opts[i].name[0])) opt_set(argv[0], &opts[i], optarg);
    }
  }
  if (argc - optind > rest_max) {
    fprintf(stderr, "%s: what is '%s'?\n", argv[0], argv[optind + rest_max]);
    exit(2);
  }
  return optind;
}

#endif
