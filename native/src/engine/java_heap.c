/*
 * The part of a Java heap that no object lies in: the collector keeps it for later, with what was there before. Where it is says the table of the virtual
 * machine's own structures that HotSpot exports for debuggers (gHotSpotVMStructs, vmStructs.hpp). Objects lie below a space's top; so what is above it
 * at the end of a collector's pause, when no thread is about to allocate, is nobody's. At other moments that would not do: G1 writes to the rest of a
 * large object's last region before it moves the top.
 */
#include <linux/mman.h>

#include "java.h"

extern __attribute__((weak)) void *dlsym(void *handle, const char *name);

/* Offsets in an entry of a table, and from one to the next. */
static struct {
  uint64_t entries, type, field, is_static, offset, address, stride;
} structs;
static struct {
  uint64_t entries, type, size, stride;
} types;

static bool variable(const char *name, uint64_t *ret) {
  const uint64_t *found = dlsym == NULL ? NULL : dlsym(NULL, name);
  if (found == NULL) return false;
  *ret = *found;
  return true;
}

void java_heap_begin(void) {
  const bool known = variable("gHotSpotVMStructs", &structs.entries) && variable("gHotSpotVMStructEntryTypeNameOffset", &structs.type) && variable("gHotSpotVMStructEntryFieldNameOffset", &structs.field) &&
                     variable("gHotSpotVMStructEntryIsStaticOffset", &structs.is_static) && variable("gHotSpotVMStructEntryOffsetOffset", &structs.offset) &&
                     variable("gHotSpotVMStructEntryAddressOffset", &structs.address) && variable("gHotSpotVMStructEntryArrayStride", &structs.stride) && variable("gHotSpotVMTypes", &types.entries) &&
                     variable("gHotSpotVMTypeEntryTypeNameOffset", &types.type) && variable("gHotSpotVMTypeEntrySizeOffset", &types.size) && variable("gHotSpotVMTypeEntryArrayStride", &types.stride);
  if (!known) structs.entries = 0;
}

static uint64_t word(uint64_t address) { return *(const uint64_t *)address; }

/* The table's entry of a field, 0 for none. */
static uint64_t entry(const char *type, const char *field) {
  for (uint64_t at = structs.entries; word(at + structs.type) != 0; at += structs.stride)
    if (strings_equal((const char *)word(at + structs.type), type) && strings_equal((const char *)word(at + structs.field), field)) return at;
  return 0;
}

/* Whether the virtual machine has all that was asked for. */
static bool complete;

static uint64_t offset_in(const char *type, const char *field) {
  uint64_t found = entry(type, field);
  complete = complete && found != 0;
  return found == 0 ? 0 : word(found + structs.offset);
}

/* The value of a static field of eight bytes. */
static uint64_t value_of(const char *type, const char *field) {
  uint64_t found = entry(type, field);
  complete = complete && found != 0;
  return found == 0 ? 0 : word(word(found + structs.address));
}

static bool flag_is_on(const char *name) {
  uint64_t size = 0;
  for (uint64_t at = types.entries; word(at + types.type) != 0; at += types.stride)
    if (strings_equal((const char *)word(at + types.type), "JVMFlag")) size = word(at + types.size);
  const uint64_t name_offset = offset_in("JVMFlag", "_name"), address_offset = offset_in("JVMFlag", "_addr"), flags = value_of("JVMFlag", "flags"), count = value_of("JVMFlag", "numFlags");
  for (uint64_t i = 0; complete && size != 0 && i < count; i++) {
    const char *found = (const char *)word(flags + i * size + name_offset);
    if (found != NULL && strings_equal(found, name)) return *(const bool *)word(flags + i * size + address_offset);
  }
  return false;
}

/* Where the objects of a space begin, where the next would come, and where the space ends. */
struct bounds {
  uint64_t bottom, top, end;
};

static struct bounds bounds_in(const char *type, const char *base) {
  const char *owner = entry(type, "_bottom") != 0 ? type : base;
  return (struct bounds){offset_in(owner, "_bottom"), offset_in(type, "_top"), offset_in(owner, "_end")};
}

struct unused {
  uint64_t start, end;
  uint64_t released;
};

static void give_back(struct unused *unused) {
  if (unused->start < unused->end && engine_madvise(unused->start, unused->end - unused->start, MADV_DONTNEED) == 0) unused->released += unused->end - unused->start;
}

/* Whole pages of [start, end), which comes behind what was added before or is a stretch of its own. */
static void add_unused(struct unused *unused, uint64_t start, uint64_t end) {
  start = round_up(start, PAGE_SIZE);
  end = round_down(end, PAGE_SIZE);
  if (start >= end) return;
  if (unused->end != start) {
    give_back(unused);
    unused->start = start;
  }
  unused->end = end;
}

static void add_space(struct unused *unused, uint64_t space, const struct bounds *bounds, bool empty) {
  const uint64_t bottom = word(space + bounds->bottom), top = empty ? bottom : word(space + bounds->top), end = word(space + bounds->end);
  if (bottom <= top && top <= end) add_unused(unused, top, end);
}

static void add_serial(struct unused *unused, uint64_t heap) {
  const char *owner = entry("SerialHeap", "_young_gen") != 0 ? "SerialHeap" : "GenCollectedHeap";
  const struct bounds bounds = bounds_in("ContiguousSpace", "Space");
  const uint64_t young = offset_in(owner, "_young_gen"), old = offset_in(owner, "_old_gen"), tenured = offset_in("TenuredGeneration", "_the_space");
  const uint64_t spaces[] = {offset_in("DefNewGeneration", "_eden_space"), offset_in("DefNewGeneration", "_from_space"), offset_in("DefNewGeneration", "_to_space")};
  if (!complete) return;
  for (size_t i = 0; i < 3; i++) add_space(unused, word(word(heap + young) + spaces[i]), &bounds, false);
  add_space(unused, word(word(heap + old) + tenured), &bounds, false);
}

static void add_parallel(struct unused *unused) {
  const struct bounds bounds = bounds_in("MutableSpace", "MutableSpace");
  const uint64_t young = value_of("ParallelScavengeHeap", "_young_gen"), old = value_of("ParallelScavengeHeap", "_old_gen"), tenured = offset_in("PSOldGen", "_object_space");
  const uint64_t spaces[] = {offset_in("PSYoungGen", "_eden_space"), offset_in("PSYoungGen", "_from_space"), offset_in("PSYoungGen", "_to_space")};
  /* With UseNUMA eden has parts with tops of their own. */
  if (!complete || flag_is_on("UseNUMA")) return;
  for (size_t i = 0; i < 3; i++) add_space(unused, word(young + spaces[i]), &bounds, false);
  add_space(unused, word(old + tenured), &bounds, false);
}

static void add_g1(struct unused *unused, uint64_t heap) {
  /* Renamed in JDK 23. */
  const bool renamed = entry("G1HeapRegion", "_top") != 0;
  const char *region = renamed ? "G1HeapRegion" : "HeapRegion";
  const struct bounds bounds = bounds_in(region, region);
  const uint64_t table = heap + offset_in("G1CollectedHeap", "_hrm") + offset_in(renamed ? "G1HeapRegionManager" : "HeapRegionManager", "_regions");
  const uint64_t tag = offset_in(region, "_type") + offset_in(renamed ? "G1HeapRegionType" : "HeapRegionType", "_tag");
  const uint64_t base = offset_in("G1HeapRegionTable", "_base"), length = offset_in("G1HeapRegionTable", "_length");
  for (uint64_t i = 0; complete && i < word(table + length); i++) {
    const uint64_t one = word(word(table + base) + 8 * i);
    if (one != 0) add_space(unused, one, &bounds, *(const uint32_t *)(one + tag) == 0 /* FreeTag */);
  }
}

static void add_shenandoah(struct unused *unused, uint64_t heap) {
  const struct bounds bounds = bounds_in("ShenandoahHeapRegion", "ShenandoahHeapRegion");
  const uint64_t regions = offset_in("ShenandoahHeap", "_regions"), count = offset_in("ShenandoahHeap", "_num_regions");
  for (uint64_t i = 0; complete && i < word(heap + count); i++) add_space(unused, word(word(heap + regions) + 8 * i), &bounds, false);
}

int java_heap_collections(void) {
  /* Shenandoah frees regions when its last pause is over: that shows in the next collection's. */
  return structs.entries != 0 && flag_is_on("UseShenandoahGC") ? 2 : 1;
}

void java_heap_release_unused(void) {
  struct unused unused = {0, 0, 0};
  if (structs.entries == 0) return;
  complete = true;
  const uint64_t heap = value_of("Universe", "_collectedHeap");
  const uint64_t active = offset_in("CollectedHeap", entry("CollectedHeap", "_is_gc_active") != 0 ? "_is_gc_active" : "_is_stw_gc_active");
  const bool serial = flag_is_on("UseSerialGC");
  /* Serial of JDK 24 and later clears it just after it has told of the end. */
  if (!complete || heap == 0 || (*(const bool *)(heap + active) && !serial)) return;
  if (serial) add_serial(&unused, heap);
  if (flag_is_on("UseParallelGC")) add_parallel(&unused);
  if (flag_is_on("UseG1GC")) add_g1(&unused, heap);
  if (flag_is_on("UseShenandoahGC")) add_shenandoah(&unused, heap);
  give_back(&unused);
  log_debug("%lu bytes of the Java heap are not in use", unused.released);
}
