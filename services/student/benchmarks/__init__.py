"""The student beside what a user would run instead. Started by `npm run bench -- NAME`."""
