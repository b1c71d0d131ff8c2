/*** What there is to say about the machine: devices, threads, instruction sets, memory, time.
 * @module pixelrefer.core
 */
#include "lua/binding.h"

#include "core/memory.h"
#include "core/threads.h"
#include "cpu/cpu.h"
#include "ops/backend.h"
#include "ops/device.h"

#include <time.h>

/*** Number of threads that computing uses.
 * @function threads
 * @tparam ?int count sets it, 1 to 256
 * @treturn int
 */
static int threads(lua_State *L)
{
    if (!lua_isnoneornil(L, 1)) {
        pxr_error error = {0};
        const int count = (int)pxr_lua_check_integer(L, 1, INT32_MIN, INT32_MAX);
        pxr_lua_check(L, pxr_threads_set(count, &error), &error);
    }
    lua_pushinteger(L, pxr_threads());
    return 1;
}

/*** The instruction set of the CPU's float kernels. All give the same bits.
 * @function isa
 * @tparam ?string name chooses one: "scalar", "avx2", "avx512"
 * @treturn string
 */
static int isa(lua_State *L)
{
    if (!lua_isnoneornil(L, 1)) {
        pxr_error error = {0};
        pxr_lua_check(L, pxr_cpu_isa_set(luaL_checkstring(L, 1), &error), &error);
    }
    lua_pushstring(L, pxr_isa_name(pxr_cpu_isa()));
    return 1;
}

/*** The instruction sets that this processor has, the best one last.
 * @function isas
 * @treturn {string,...}
 */
static int isas(lua_State *L)
{
    int count = 0;
    lua_newtable(L);
    for (int i = 0; i < PXR_ISA_COUNT; i++) {
        if (!pxr_isa_available((pxr_isa)i)) continue;
        lua_pushstring(L, pxr_isa_name((pxr_isa)i));
        lua_rawseti(L, -2, ++count);
    }
    return 1;
}

/*** The devices that can be computed on here.
 * @function devices
 * @treturn {string,...}
 */
static int devices(lua_State *L)
{
    static const char *const names[] = {"cpu", "cuda", "emu"};
    int count = 0;
    lua_newtable(L);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        pxr_device *device;
        if (pxr_device_open(names[i], &device, NULL) != PXR_OK) continue;
        lua_pushstring(L, names[i]);
        lua_rawseti(L, -2, ++count);
    }
    return 1;
}

/*** In what a device computes: "f32"; "bf16" (operands of products and attention rounded to bfloat16, or to float16 where
 * the weights are; on the CPU operands of products with bfloat16 weights); "int8" (on the CPU, operands of products with
 * weights of eight or four bits rounded to eight, with a scale for 128 columns at most). The sums are float32.
 * @function compute
 * @tparam string device
 * @tparam[opt] string precision what it shall be from now on
 * @treturn string
 */
static int compute(lua_State *L)
{
    static const char *const names[] =
        {[PXR_COMPUTE_F32] = "f32", [PXR_COMPUTE_BF16] = "bf16", [PXR_COMPUTE_INT8] = "int8", NULL};
    pxr_device *device = pxr_lua_opt_device(L, 1);
    const pxr_compute wanted = (pxr_compute)luaL_checkoption(L, 2, names[device->compute], names);
    if (!device->is_host && wanted == PXR_COMPUTE_INT8)
        return luaL_error(L, "compute: %s computes in f32 or bf16, not in %s", device->name, names[wanted]);
    device->compute = wanted;
    lua_pushstring(L, names[wanted]);
    return 1;
}

/*** The memory of a device that is not the host.
 * @function device_memory
 * @tparam string device
 * @treturn ?int bytes that are free; nil where the device's memory is the process's own
 * @treturn ?int bytes in all
 */
static int device_memory(lua_State *L)
{
    pxr_error error = {0};
    size_t available = 0, total = 0;
    pxr_device *device = pxr_lua_opt_device(L, 1);
    if (!device->backend->memory) return 0;
    pxr_lua_check(L, device->backend->memory(device, &available, &total, &error), &error);
    lua_pushnumber(L, (lua_Number)available);
    lua_pushnumber(L, (lua_Number)total);
    return 2;
}

/*** Names of all ops of the op table.
 * @function ops
 * @treturn {string,...}
 */
static int ops(lua_State *L)
{
    lua_newtable(L);
    for (int i = 0; i < pxr_op_count(); i++) {
        lua_pushstring(L, pxr_op_name(i));
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/*** Bytes of host memory that the library holds outside Lua's heap.
 * @function memory
 * @treturn int
 */
static int memory(lua_State *L)
{
    lua_pushnumber(L, (double)pxr_memory_in_use());
    return 1;
}

/*** Number of allocations so far (testing).
 * @function memory_allocations
 * @treturn int
 */
static int memory_allocations(lua_State *L)
{
    lua_pushnumber(L, (double)pxr_memory_allocations());
    return 1;
}

/*** Makes one allocation fail (testing).
 * @function memory_fail_at
 * @tparam int allocation its number as memory_allocations counts, from 1; 0: none
 */
static int memory_fail_at(lua_State *L)
{
    pxr_memory_fail_at((uint64_t)pxr_lua_check_integer(L, 1, 0, (int64_t)1 << 53 /* of a Lua number */));
    return 0;
}

/*** Seconds on a clock that never goes back.
 * @function tick
 * @treturn number
 */
static int tick(lua_State *L)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    lua_pushnumber(L, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
    return 1;
}

void pxr_lua_open_machine(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"compute", compute},
        {"device_memory", device_memory},
        {"threads", threads},
        {"isa", isa},
        {"isas", isas},
        {"devices", devices},
        {"ops", ops},
        {"memory", memory},
        {"memory_allocations", memory_allocations},
        {"memory_fail_at", memory_fail_at},
        {"tick", tick},
        {NULL, NULL},
    };
    luaL_setfuncs(L, functions, 0);
}
