/* The last part of os.h for Linux: which loaded module holds an address, and what it brings along for unwinding. The
 * loader tells the program headers of every module; one of them is the index of its tables. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <link.h>

#include "os.h"

struct module_search {
  uintptr_t pc;
  bool (*visit)(const struct coir__module *module, void *arg);
  void *arg;
  bool result;
};

/* The program header of that type in which `address` lies; with address 0 the first one. NULL: none. */
static const ElfW(Phdr) * header_of(const struct dl_phdr_info *info, uint32_t type, uintptr_t address) {
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *h = &info->dlpi_phdr[i];
    if (h->p_type == type && (!address || address - (info->dlpi_addr + h->p_vaddr) < h->p_memsz)) return h;
  }
  return NULL;
}

/* Called for each module; 1 ends the search. */
static int module_look(struct dl_phdr_info *info, size_t bytes, void *arg) {
  struct module_search *s = arg;
  (void)bytes;
  if (!header_of(info, PT_LOAD, s->pc)) return 0;
  const ElfW(Phdr) *index = header_of(info, PT_GNU_EH_FRAME, 0);
  if (!index) return 1;
  uintptr_t at = info->dlpi_addr + index->p_vaddr;
  const ElfW(Phdr) *segment = header_of(info, PT_LOAD, at);
  if (!segment) return 1;
  uintptr_t low = info->dlpi_addr + segment->p_vaddr, high = low + segment->p_memsz;
  struct coir__module module = {
      .index = (const uint8_t *)at,
      .index_end = (const uint8_t *)(index->p_memsz < high - at ? at + index->p_memsz : high),
      .low = (const uint8_t *)low,
      .high = (const uint8_t *)high,
  };
  s->result = s->visit(&module, s->arg);
  return 1;
}

bool coir__os_module_visit(uintptr_t pc, bool (*visit)(const struct coir__module *module, void *arg), void *arg) {
  struct module_search s = {.pc = pc, .visit = visit, .arg = arg};
  dl_iterate_phdr(module_look, &s);
  return s.result;
}
