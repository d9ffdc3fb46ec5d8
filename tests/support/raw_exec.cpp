// Execs the program it is given with an empty environment, by a system call of its own that no library can stand in
// front of:  raw_exec /PATH ARGUMENTS...
#include <sys/syscall.h>

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    char *nothing[] = {nullptr};
#if defined(__x86_64__)
    long result = SYS_execve;
    asm volatile("syscall" : "+a"(result) : "D"(argv[1]), "S"(argv + 1), "d"(nothing) : "rcx", "r11", "memory");
#elif defined(__aarch64__)
    register long result asm("x0") = reinterpret_cast<long>(argv[1]);
    register char **arguments asm("x1") = argv + 1;
    register char **environment asm("x2") = nothing;
    register long number asm("x8") = SYS_execve;
    asm volatile("svc 0" : "+r"(result) : "r"(arguments), "r"(environment), "r"(number) : "memory");
#endif
    return result == 0 ? 0 : 126;
}
